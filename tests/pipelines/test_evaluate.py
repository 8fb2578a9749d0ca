from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import ibis
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from multidomain.errors import DataError
from multidomain.pipelines.evaluate.nodes import evaluate, predict
from multidomain.pipelines.evaluate.pipeline import create_pipeline

if TYPE_CHECKING:
    from trained_variant import Tiny, Trained

    Both = tuple[Trained, Trained]

pytest_plugins = ["trained_variant"]


def copied(tiny: Tiny, folder: Path) -> Path:
    shutil.copytree(tiny.encoded, folder / "encoded")
    return folder / "encoded"


def test_predictions_are_one_probability_per_row_of_the_test_split(tiny: Tiny, stars: Both) -> None:
    table = stars[0].predictions.load().to_pyarrow()
    assert table.column_names == ["impression_id", "domain", "label", "score"]
    assert table.schema.field("score").type == pa.float64()
    frame = tiny.training_frame.load()
    wanted = frame.filter(frame.split == "test").order_by("impression_id").to_pyarrow()
    got = table.sort_by("impression_id")
    for column in ("impression_id", "domain", "label"):
        assert got.column(column).to_pylist() == wanted.column(column).to_pylist()
    scores = got.column("score").to_numpy()
    assert ((scores > 0) & (scores < 1)).all()


def test_metrics_have_the_agreed_form_and_survive_json(stars: Both) -> None:
    metrics = json.loads(json.dumps(stars[0].metrics, allow_nan=False))
    assert list(metrics) == ["overall", "domains"]
    assert list(metrics["domains"]) == ["home", "search", "detail page"]
    keys = {"auc", "gauc", "gauc_coverage", "pcoc", "logloss", "ece", "rows"}
    assert all(set(values) == keys for values in [metrics["overall"], *metrics["domains"].values()])
    assert sum(values["rows"] for values in metrics["domains"].values()) == metrics["overall"]["rows"] == 180


def test_groups_follow_their_impression_whatever_the_order(tiny: Tiny, stars: Both) -> None:
    shuffled = stars[0].predictions.load().to_pandas().sample(frac=1, random_state=0)
    found = evaluate(ibis.memtable(shuffled), tiny.encoded)
    assert found["overall"] == pytest.approx(stars[0].metrics["overall"])


def test_impressions_without_a_group_are_groups_of_their_own(tiny: Tiny, stars: Both, tmp_path: Path) -> None:
    encoded = copied(tiny, tmp_path)
    rows = pq.read_table(encoded / "test/rows.parquet")
    lost = rows.set_column(rows.column_names.index("group"), "group", pa.nulls(len(rows), pa.string()))
    pq.write_table(lost, encoded / "test/rows.parquet")
    overall = evaluate(stars[0].predictions.load(), encoded)["overall"]
    assert (overall["gauc"], overall["gauc_coverage"]) == (None, 0)
    assert overall["auc"] == pytest.approx(stars[0].metrics["overall"]["auc"])


def test_predictions_of_other_data_are_refused(tiny: Tiny, stars: Both) -> None:
    frame = stars[0].predictions.load().to_pandas()
    with pytest.raises(DataError, match=r"180 impressions, 180 of them not in the encoded test split"):
        evaluate(ibis.memtable(frame.assign(impression_id=frame["impression_id"] + 10_000)), tiny.encoded)
    with pytest.raises(DataError, match="100 impressions, 0 of them"):
        evaluate(ibis.memtable(frame.head(100)), tiny.encoded)


def test_a_test_split_of_one_class_ends_in_one_clear_message(tiny: Tiny, stars: Both, tmp_path: Path) -> None:
    encoded = copied(tiny, tmp_path)
    np.save(encoded / "test/label.npy", np.zeros(180, np.float32))
    with pytest.raises(
        DataError, match=r"test split of tiny/place-.*one class only: all 180 rows have label 0.*splits"
    ):
        predict(tiny.variant, encoded, stars[0].model, "cpu")


def test_plots_of_a_run_are_all_there(stars: Both) -> None:
    names = {path.name for path in stars[0].plots.iterdir()}
    assert names == {
        *("roc.png", "calibration.png", "pcoc.png", "scores.png", "segments.png", "history.png"),
        "report.html",
    }
    assert "star on tiny/place-user_time-full-click" in (stars[0].plots / "report.html").read_text("utf-8")


def test_the_pipeline_is_wired_from_model_to_plots() -> None:
    pipeline = create_pipeline()
    parameters = {f"params:{name}" for name in ("seed", "device", "calibration", "reference", "session_gap_minutes")}
    assert pipeline.inputs() == {"variant", "encoded", "training_frame", "model", "history"} | parameters
    outputs = {"calibration", "predictions", "metrics", "reference", "segments", "account", "cost", "plots", "insights"}
    assert pipeline.all_outputs() == outputs
