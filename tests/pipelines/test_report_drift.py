"""The stage that reports drift."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest

from multidomain.io import Folder
from multidomain.pipeline_registry import register_pipelines
from multidomain.pipelines.drift.nodes import report_drift

if TYPE_CHECKING:
    from trained_variant import Tiny

pytest_plugins = ["trained_variant"]


def written(tiny: Tiny, encoded: Path, folder: Path) -> Path:
    dataset = Folder(filepath=str(folder / "drift"))
    dataset.save(report_drift(tiny.variant, encoded))
    return dataset.load()


def test_every_input_of_a_model_is_compared_and_a_history_by_its_length(tiny: Tiny, tmp_path: Path) -> None:
    table = pd.read_parquet(written(tiny, tiny.encoded, tmp_path) / "psi.parquet")
    features = {feature.name for feature in tiny.variant.features}
    assert set(table.feature) == features | {"positives (length)"}
    assert table.groupby("comparison").size().to_dict() == {
        "validation against train": 4 * len(set(table.feature)),
        "test against train": 4 * len(set(table.feature)),
        "domain against others": 3 * len(set(table.feature)),
    }
    overall = table[table.domain.isna()].set_index("comparison")
    assert set(overall.rows_a["test against train"]) == {180}
    assert set(overall.rows_b) == {540}
    labels = pd.read_parquet(tmp_path / "drift/labels.parquet").set_index(["split", "domain"])
    frame = tiny.training_frame.load().to_pandas()
    for (split, domain), rows in frame.groupby(["split", "domain"]):
        assert labels.rate[split, domain] == pytest.approx(rows.label.mean())
    assert "tiny/" in (tmp_path / "drift/report.html").read_text()


def test_a_feature_that_moved_is_named_in_one_line(
    tiny: Tiny, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    moved = Path(shutil.copytree(tiny.encoded, tmp_path / "encoded"))
    ids = np.load(moved / "test/categorical.npy")
    column = pd.read_json(moved / "inputs.json", typ="series")["categorical"].index("gender")
    ids[:, column] = 2
    np.save(moved / "test/categorical.npy", ids)
    with caplog.at_level(logging.WARNING):
        written(tiny, moved, tmp_path)
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith("drift from train to test, PSI above 0.25: ")
    assert "gender (" in line
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        written(tiny, tiny.encoded, tmp_path)
    assert "gender (" not in caplog.text


def test_the_report_is_part_of_all_that_prepares() -> None:
    pipelines = register_pipelines()
    for name in ("prepare", "train_star", "compare", "reproduce"):
        assert "drift" in pipelines[name].all_outputs()
    assert pipelines["drift"].inputs() == {"variant", "encoded"}
