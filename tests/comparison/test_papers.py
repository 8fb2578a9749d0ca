from __future__ import annotations

import re

import pytest
import yaml
from places import PROJECT, SHARED

from multidomain.comparison import papers
from multidomain.comparison.side_by_side import SideBySide
from multidomain.errors import ConfigurationError
from multidomain.inputs import InputSchema
from multidomain.models import architectures, build, options
from multidomain.training.config import TrainingConfig

TABLES = (
    "adaptdhm_3 adaptdhm_fig2 ads_3 ads_fig4 ads_fig5 hierrec_6 hierrec_fig3 hmdn_2 hmdn_fig2 star_3 star_4 star_fig6"
)
INPUTS = InputSchema(
    domains=3,
    vocabularies={"user": 9, "item": 9, "place": 4},
    categorical=("user", "item", "place"),
    history={"clicked": "item"},
    history_length=20,
    distribution=("place",),
    owners={"user": "user", "item": "item", "place": "context", "clicked": "user"},
)
ROWS = [(name, row) for name in papers.names() for row in papers.load(name).rows]
TINY = """
title: A table
paper: Somebody, 2020
data: their log
theirs: [AUC]
ours: [{name: AUC, metric: auc}, {name: Imp., metric: auc, against: Base, as: rela_impr}]
rows:
  - {label: Base, architecture: dnn, paper: [0.6]}
  - {label: Better, architecture: star, model: {fcn: star}, paper: [null]}
"""


def parsed(folder, text: str = TINY) -> papers.PaperTable:
    (folder / "tiny.yml").write_text(text)
    return papers.parse(folder / "tiny.yml")


def test_every_table_that_is_promised_is_there():
    assert papers.names() == TABLES.split()


@pytest.mark.parametrize(("name", "row"), ROWS, ids=[f"{name}-{row.name}" for name, row in ROWS])
def test_a_row_names_options_that_its_architecture_has(name, row):
    if row.architecture not in architectures():
        pytest.skip(f"there is no architecture '{row.architecture}' yet")
    assert set(row.model) <= set(options(row.architecture))
    TrainingConfig(**row.training)
    path = PROJECT / f"conf/base/parameters/models/{row.architecture}.yml"
    section = yaml.safe_load(path.read_text().replace("${globals:epochs}", "1"))[row.architecture]
    build(row.architecture, INPUTS, **{**section["model"], **row.model})


@pytest.mark.parametrize("name", papers.names())
def test_no_two_rows_of_a_table_are_the_same_model(name):
    made = [
        (row.architecture, sorted(row.model.items()), sorted(row.training.items())) for row in papers.load(name).rows
    ]
    assert all(made.count(one) == 1 for one in made)


@pytest.mark.parametrize("name", papers.names())
def test_printed_numbers_are_those_of_the_paper(name):
    folder = SHARED / "papers"
    if not folder.is_dir():
        pytest.skip(f"the papers' texts are not here: {folder}")
    text = (folder / f"{name.split('_')[0]}.txt").read_text(encoding="utf-8")
    printed = set(re.findall(r"\d+\.\d+", text))
    for row in papers.load(name).rows:
        for value in row.paper:
            if isinstance(value, float):
                assert f"{value:.4f}" in printed, (row.name, value)
            elif value is not None and value.endswith("%"):
                assert value.strip("+-%") in printed, (row.name, value)


def test_relative_numbers_as_printed_follow_from_the_absolute_ones():
    """Which formula a paper means by its improvement is told by its own numbers: they agree to a rounding."""
    ads, column = papers.load("ads_3"), papers.load("ads_3").ours[-1]
    for row in ads.rows:
        base = ads.against(row, column).paper[3]
        if row.paper[4] is not None:
            assert ((row.paper[3] - 0.5) / (base - 0.5) - 1) * 100 == pytest.approx(float(row.paper[4][:-1]), abs=0.02)
    hmdn = papers.load("hmdn_2")
    for row in hmdn.rows:
        for value, relative, base in ((0, 1, 0.8427), (2, 3, 0.6237)):
            assert (row.paper[value] / base - 1) * 100 == pytest.approx(float(row.paper[relative][:-1]), abs=0.01)


def test_no_name_and_an_unknown_name_list_the_tables():
    with pytest.raises(ConfigurationError, match=r"--params=table=NAME. There are: adaptdhm_3, .*star_fig6"):
        papers.load(None)
    with pytest.raises(ConfigurationError, match=r"'star_33' is not known; did you mean 'star_3'.*star_fig6"):
        papers.load("star_33")


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("title:", "titel:", "tiny.yml: 'titel' is not known; did you mean 'title'"),
        ("data: their log\n", "", "tiny.yml: 'data' is missing"),
        ("metric: auc}, ", "metric: ac}, ", "ours.AUC.metric: 'ac' is not known; did you mean 'auc'"),
        ("as: rela_impr", "as: relative", "ours.Imp..as: 'relative' is not known"),
        ("against: Base", "against: Bas", "ours.Imp..against: 'Bas' is not known; did you mean 'Base'"),
        ("[0.6]", "[0.6, 0.7]", r"rows\[1\].paper: has 2 values for 1 columns"),
        ("label: Better", "label: Base", "'Base' is there 2 times"),
        ("model: {fcn", "modle: {fcn", r"rows\[2\]: 'modle' is not known"),
        ("title: A", "trained: false\ntitle: A", "'auc' needs training"),
        ("title: A", "plot: {kind: line, x: K, y: GAUC}\ntitle: A", "plot.y: 'GAUC' is not known"),
        ("title: A", "plot: {kind: bar, x: K, y: AUC}\ntitle: A", "plot.kind: 'bar' is not known"),
        ("title: A", "title: B\ntitle: A", "given twice"),
    ],
)
def test_a_mistake_in_a_table_names_the_place(tmp_path, before, after, message):
    assert before in TINY
    with pytest.raises(Exception, match=message):
        parsed(tmp_path, TINY.replace(before, after, 1))


def test_rows_whose_architecture_is_not_here_are_left_out_with_the_reason(tmp_path):
    table = parsed(tmp_path, TINY.replace("architecture: star", "architecture: starr"))
    entries, missing = papers.planned(table, {})
    assert [entry.label for entry in entries] == ["Base"]
    assert missing == {"Better": "there is no architecture 'starr'"}
    nothing = parsed(tmp_path, TINY.replace("architecture: star", "architecture: a").replace("dnn", "b"))
    with pytest.raises(ConfigurationError, match=r"none of its architectures is here.*'a'.*'b'"):
        papers.planned(nothing, {})


def test_options_of_a_row_stand_in_the_place_of_the_configured_ones(tmp_path):
    own = {"star": {"model": {"fcn": "shared", "dropout": 0.1}, "training": {"epochs": 1}}}
    entries, _ = papers.planned(parsed(tmp_path), own)
    assert entries[1].model == {"fcn": "star", "dropout": 0.1}
    assert entries[1].training == {"epochs": 1}


def test_a_misspelt_option_of_a_row_is_refused(tmp_path):
    with pytest.raises(ConfigurationError, match=r"'Better': star.model: 'fnc' is not known; did you mean 'fcn'"):
        papers.planned(parsed(tmp_path, TINY.replace("fcn: star", "fnc: star")), {})


def test_a_formula_is_summed_with_our_number_of_domains():
    table = papers.load("adaptdhm_3")
    sides = SideBySide.of(table, [], sizes={}, domains=7, missing={})
    values = {row.label: sides.value(row, table.ours[0]).mean for row in table.rows}
    assert values == {"one MLP": 1, "SharedBottom": 7, "PLE": 8, "STAR": 8, "AdaptDHM": 10}
