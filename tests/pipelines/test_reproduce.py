from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest

from multidomain.comparison import papers
from multidomain.comparison.results import Result
from multidomain.io import Folder, PaperTable
from multidomain.pipelines.compare import jobs
from multidomain.pipelines.compare.nodes import train_each
from multidomain.pipelines.reproduce.nodes import lay_out, train_rows
from multidomain.pipelines.reproduce.pipeline import create_pipeline

if TYPE_CHECKING:
    from trained_variant import Tiny

pytest_plugins = ["trained_variant"]

SIZES = """
title: Sizes
paper: Somebody, 2020
data: formulas
trained: false
theirs: [Parameters]
ours:
  - {name: formula, metric: terms}
  - {name: parameters, metric: parameters_rest}
  - {name: times, metric: parameters_rest, against: one, as: multiple}
  - {name: operations, metric: training_flops}
rows:
  - {label: one, architecture: dnn, model: {normalization: none, auxiliary: false}, paper: [P], terms: [1]}
  - {label: STAR, architecture: star, model: {normalization: none, auxiliary: false}, paper: [P·(M+1)], terms: [M, 1]}
  - {label: gone, architecture: nobody, paper: [null]}
"""


def parameters(**compare: Any) -> dict[str, Any]:
    from trained_variant import MODELS, TRAINING

    own = {name: {"model": model, "training": TRAINING} for name, model in MODELS.items()}
    asked = {"models": "dnn", "seeds": [1, 2], "base": "dnn", "workers": 1, **compare}
    return {"compare": asked, "device": "cpu", "table": "star_4", **own}


def laid_out(tiny: Tiny, folder: Path, table: papers.PaperTable, given: dict[str, Any]) -> tuple[dict[str, Any], Path]:
    results, checkpoints = folder / "results", folder / "checkpoints"
    for each in (results, checkpoints):
        each.mkdir(exist_ok=True)
    made = train_rows(tiny.variant, tiny.encoded, table, results, checkpoints, given)
    made = json.loads(json.dumps(made, allow_nan=False))
    output = Folder(filepath=str(folder / table.name))
    output.save(lay_out(tiny.variant, tiny.encoded, table, results, made))
    return made, output.load()


def test_a_table_of_star_is_laid_beside_ours(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = PaperTable(name="star_4").load()
    made, folder = laid_out(tiny, tmp_path, table, parameters())
    frame = pd.read_parquet(folder / "table.parquet")
    values = frame.set_index(["label", "source", "column"])["value"]
    assert values["STAR FCN (LN)", "paper", "Overall AUC"] == 0.6463
    for row in table.rows:
        places = [one["folder"] for one in made["results"] if one["label"] == row.label]
        metrics = [Result.read(tmp_path / "results" / place, row.label).metrics["overall"] for place in places]
        assert len(metrics) == 2
        assert values[row.label, "ours", "GAUC"] == pytest.approx(np.mean([one["gauc"] for one in metrics]))
        assert values[row.label, "ours", "AUC"] == pytest.approx(np.mean([one["auc"] for one in metrics]))
    text = (folder / "table.md").read_text("utf-8")
    assert "|  | STAR FCN (BN) | STAR FCN (LN) | STAR FCN (PN) |" in text
    assert "| paper: Overall AUC | 0.6455 | 0.6463 | 0.6506 |" in text
    assert "The data differs: the paper's is one day of Alibaba" in text
    assert "ours is tiny (place-user_time-full-click)" in text
    assert "seeds 1, 2" in text

    monkeypatch.setattr(jobs, "train", None)  # nothing is trained from here on
    compared = train_each(
        tiny.variant,
        tiny.encoded,
        tmp_path / "results",
        tmp_path / "checkpoints",
        parameters(models=["star"], base="star"),
    )
    shared = {one["folder"] for one in made["results"]} & {one["folder"] for one in compared["results"]}
    assert len(shared) == 2  # STAR as configured is the row STAR FCN (PN)


def test_sizes_are_counted_without_training(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "train", None)
    (tmp_path / "sizes.yml").write_text(SIZES)
    made, folder = laid_out(tiny, tmp_path, papers.parse(tmp_path / "sizes.yml"), parameters())
    assert made["results"] == []
    frame = pd.read_parquet(folder / "table.parquet")
    values = frame[frame.source == "ours"].set_index(["label", "column"])["value"]
    assert values["STAR", "formula"] == 4
    assert values["STAR", "times"] == 4  # three domains and the centre
    assert values["one", "times"] == 1
    assert values["STAR", "operations"] == values["one", "operations"] > 0  # a row meets its own domain's network
    text = (folder / "table.md").read_text("utf-8")
    assert "nothing was trained" in text
    assert "Left out, as there is no architecture 'nobody': gone." in text


def test_the_pipeline_is_wired_from_tensors_to_table() -> None:
    pipeline = create_pipeline()
    working = {"comparison_results", "comparison_checkpoints"}
    assert pipeline.inputs() == {"variant", "encoded", "paper_table", "parameters", *working}
    assert pipeline.all_outputs() == {"reproduced", "reproduction"}
