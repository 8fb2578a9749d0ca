from __future__ import annotations

import math
from pathlib import Path

import pandas as pd
import pytest

from multidomain.comparison import papers, side_by_side
from multidomain.comparison.results import Result
from multidomain.comparison.side_by_side import SideBySide

TEXT = """
title: A <table>
paper: Somebody, 2020
data: their log
theirs: [AUC, Gain]
ours:
  - {name: AUC, metric: auc}
  - {name: D2, metric: auc, domain: 2}
  - {name: D9, metric: auc, domain: 9}
  - {name: Imp., metric: auc, against: first, as: rela_impr}
  - {name: Ratio, metric: auc, against: base, as: ratio}
  - {name: Plus, metric: auc, against: base, as: difference}
  - {name: Size, metric: parameters}
  - {name: Times, metric: parameters_rest, against: base, as: multiple}
rows:
  - {group: A, label: base, architecture: dnn, paper: [0.6, null]}
  - {group: A, label: better, architecture: star, paper: [0.62, +2.00%]}
  - {group: B, label: base, architecture: dnn, paper: [0.7, null]}
  - {group: B, label: better, architecture: star, paper: [0.71, "x"]}
plot: {kind: dots, x: group, y: AUC}
notes: [A remark.]
"""
AREAS = {"A: base": (0.60, 0.70), "A: better": (0.65, 0.72), "B: base": (0.80, 0.82)}


@pytest.fixture
def sides(tmp_path) -> SideBySide:
    return made(tmp_path)


def made(folder: Path, text: str = TEXT) -> SideBySide:
    (folder / "t.yml").write_text(text)

    def result(name: str, seed: int, area: float) -> Result:
        domains = {"home": {"auc": area}, "search": {"auc": area - 0.1}}
        about = {"seed": seed, "parameters_embedding": 1000, "parameters_rest": 30 if "better" in name else 10}
        return Result(label=name, folder=folder, about=about, metrics={"overall": {"auc": area}, "domains": domains})

    results = [result(name, seed, area) for name, each in AREAS.items() for seed, area in enumerate(each, start=1)]
    missing = {"B: better": "there is no architecture 'star'"}
    return SideBySide.of(papers.parse(folder / "t.yml"), results, sizes={}, domains=2, missing=missing)


def cell(sides: SideBySide, row: str, column: str):
    found = next(one for one in sides.table.rows if one.name == row)
    return sides.value(found, next(one for one in sides.table.ours if one.name == column))


def test_ours_is_the_mean_over_seeds(sides):
    assert cell(sides, "A: base", "AUC").mean == pytest.approx(0.65)
    assert cell(sides, "A: base", "AUC").sd == pytest.approx(0.1 / math.sqrt(2))
    assert cell(sides, "A: base", "D2").mean == pytest.approx(0.55)


def test_relative_columns_compare_seed_by_seed_within_the_group(sides):
    assert cell(sides, "A: better", "Imp.").mean == pytest.approx(((0.15 / 0.10 - 1) + (0.22 / 0.20 - 1)) / 2)
    assert cell(sides, "A: better", "Ratio").mean == pytest.approx(((0.65 / 0.60 - 1) + (0.72 / 0.70 - 1)) / 2)
    assert cell(sides, "A: better", "Plus").mean == pytest.approx((0.05 + 0.02) / 2)
    assert cell(sides, "A: better", "Times").mean == 3
    assert cell(sides, "B: base", "Imp.").mean == 0


def test_what_is_not_there_is_a_dash_and_said(sides):
    assert math.isnan(cell(sides, "B: better", "AUC").mean)
    assert math.isnan(cell(sides, "A: base", "D9").mean)
    said = " ".join(sides.sentences("ours"))
    assert "The data differs: the paper's is their log; ours is ours." in said
    assert "Left out, as there is no architecture 'star': B: better." in said
    assert "D2 is the domain search, D9 is the domain – (there are fewer)" in said
    assert "seeds 1, 2" in said
    assert "A remark." in said


def test_models_stand_below_one_another_with_their_group(sides):
    head, body = sides.grid()
    assert head[:5] == ["group", "model", "paper: AUC", "paper: Gain", "ours: AUC"]
    assert body[1][:5] == ["A", "better", "0.6200", "+2.00%", "0.6850 ± 0.0495"]
    assert body[1][-2:] == ["1,030", "3.00 ×"]
    assert body[3][4:] == ["–"] * 8


def test_or_side_by_side_as_the_paper_has_them(tmp_path):
    head, body = made(tmp_path, TEXT + "across: true\n").grid()
    assert head == ["", "A: base", "A: better", "B: base", "B: better"]
    assert body[0] == ["paper: AUC", "0.6000", "0.6200", "0.7000", "0.7100"]
    assert [line[0] for line in body][2] == "ours: AUC"


def test_four_files_are_written_and_the_page_needs_nothing_else(sides, tmp_path):
    (tmp_path / "out").mkdir()
    side_by_side.write(tmp_path / "out", sides, ours="our log", facts={"date": "today"})
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "figure.png",
        "table.html",
        "table.md",
        "table.parquet",
    ]
    page, text = ((tmp_path / "out" / name).read_text("utf-8") for name in ("table.html", "table.md"))
    assert "A &lt;table&gt;" in page
    assert "http" not in page
    for word in ("The data differs", "today", "0.6850", "0.6200"):
        assert word in page
        assert word in text
    assert "| A | better | 0.6200 | +2.00% | 0.6850 ± 0.0495 |" in text


def test_the_frame_holds_every_number_of_both(sides):
    frame = sides.frame()
    assert len(frame) == 4 * (2 + 8)
    ours = frame[(frame.source == "ours") & (frame.column == "AUC") & (frame.label == "better")]
    assert ours["value"].iloc[0] == pytest.approx(0.685)
    theirs = frame[(frame.source == "paper") & (frame.column == "AUC")]
    assert theirs["value"].tolist() == [0.6, 0.62, 0.7, 0.71]
    assert isinstance(frame, pd.DataFrame)


@pytest.mark.parametrize("plot", ["{kind: line, x: K, y: AUC}", "{kind: dots, x: K, y: Size}"])
def test_figures_are_drawn_with_and_without_numbers_of_the_paper(tmp_path, plot):
    sides = made(tmp_path, TEXT.replace("{kind: dots, x: group, y: AUC}", plot))
    side_by_side.draw(sides).savefig(tmp_path / "figure.png")
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")
