from __future__ import annotations

from typing import TYPE_CHECKING

import ibis
import pytest

from multidomain.errors import DataError
from multidomain.pipelines.package.nodes import check_rows
from multidomain.pipelines.package.pipeline import create_pipeline

if TYPE_CHECKING:
    from trained_variant import Tiny, Trained

    Both = tuple[Trained, Trained]

pytest_plugins = ["trained_variant"]


def test_rows_to_check_are_spread_over_the_test_split_beside_their_scores(tiny: Tiny, stars: Both) -> None:
    rows = check_rows(tiny.training_frame.load(), stars[0].predictions.load(), count=10)
    scored = stars[0].predictions.load().to_pandas()
    assert len(rows) == 10
    assert set(rows["split"]) == {"test"}
    assert {scored["impression_id"].iloc[0], scored["impression_id"].iloc[-1]} <= set(rows["impression_id"])
    wanted = scored.set_index("impression_id")["score"]
    assert rows["score"].tolist() == wanted.loc[rows["impression_id"]].tolist()
    assert len(check_rows(tiny.training_frame.load(), stars[0].predictions.load())) == 180


def test_features_made_again_since_the_prediction_are_noticed(tiny: Tiny, stars: Both) -> None:
    frame = tiny.training_frame.load()
    fewer = frame.filter((frame.split != "test") | (frame.impression_id % 2 == 0))
    with pytest.raises(DataError, match="The features hold 90 of 180 impressions that were predicted"):
        check_rows(fewer, stars[0].predictions.load())


def test_text_impression_ids_are_matched_too(tiny: Tiny, stars: Both) -> None:
    frame = tiny.training_frame.load().mutate(impression_id=ibis._.impression_id.cast("string"))
    scored = stars[0].predictions.load().mutate(impression_id=ibis._.impression_id.cast("string"))
    assert len(check_rows(frame, scored)) == 180


def test_the_pipeline_takes_everything_a_training_leaves_behind() -> None:
    pipeline = create_pipeline("star")
    assert pipeline.inputs() == {
        "variant",
        "encoder",
        "encoded",
        "training_frame",
        "model",
        "history",
        "predictions",
        "metrics",
        "plots",
        "insights",
        "reference",
        "calibration",
        "account",
        "cost",
        "params:gate",
        "params:model",
        "params:training",
        "params:seed",
        "params:package",
        "params:warm_start",
        "params:window",
    }
    assert pipeline.all_outputs() == {"package"}
