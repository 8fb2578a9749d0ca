"""What differs between offline and online stops the run, and says what to do."""

from __future__ import annotations

from typing import Any

import pytest
from trained_variant import variant

from multidomain.errors import ConfigurationError, DataError
from multidomain.pipeline_registry import register_pipelines
from multidomain.pipelines.check_parity.nodes import check_views, judge_parity, measure_parity

OPTIONS = {"moments": 10, "rows": 1000, "seed": 1, "leak_rows": 1000, "allowed": 0, "allowed_score": 1e-6}


def report(score: float = 0.0, **wrong: tuple[int, int]) -> dict[str, Any]:
    features = [
        {"feature": name, "rows": 100, "equal": 100 - a - b, "differing": a, "missing": b, "example": f"of {name}"}
        for name, (a, b) in {"age": (0, 0), **wrong}.items()
    ]
    return {"features": features, "rows": 100, "moments": ["2001", "2002"], "score_difference": score}


def test_nothing_is_said_where_nothing_differs(tmp_path):
    judge_parity(variant(tmp_path), report(score=1e-7), OPTIONS)


def test_every_feature_that_differs_is_named_with_an_example(tmp_path):
    with pytest.raises(DataError) as error:
        judge_parity(variant(tmp_path), report(gender=(2, 1), hour=(0, 4)), OPTIONS)
    for words in (
        "7 feature values",
        "gender: 2 differ, 1 missing",
        "of gender",
        "hour: 0 differ, 4 missing",
        "of hour",
    ):
        assert words in error.value.message
    assert "age:" not in error.value.message


@pytest.mark.parametrize(("allowed", "fails"), [(6, True), (7, False)])
def test_as_many_may_differ_as_is_allowed(tmp_path, allowed, fails):
    found, options = report(gender=(2, 1), hour=(0, 4)), OPTIONS | {"allowed": allowed}
    if fails:
        with pytest.raises(DataError):
            judge_parity(variant(tmp_path), found, options)
    else:
        judge_parity(variant(tmp_path), found, options)


def test_scores_that_differ_stop_the_run_too(tmp_path):
    with pytest.raises(DataError, match=r"scores differ by up to 0.001"):
        judge_parity(variant(tmp_path), report(score=1e-3), OPTIONS)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"row": 3}, "'row' is not known; did you mean 'rows'"),
        ({"rows": "many"}, "check_parity.rows must be a whole number"),
        ({"leak_rows": 0.5}, "check_parity.leak_rows must be a whole number"),
        ({"allowed": -1}, "from 0 up"),
        ({"allowed_score": "none"}, "must be a number"),
    ],
)
def test_a_wrong_option_is_refused_before_anything_is_read(tmp_path, options, words):
    with pytest.raises(ConfigurationError, match=words):
        check_views(variant(tmp_path), OPTIONS | options)
    with pytest.raises(ConfigurationError, match=words):
        measure_parity(variant(tmp_path), None, "star", None, OPTIONS | options)  # type: ignore[arg-type]


def test_views_and_leaks_are_checked_before_anything_is_measured():
    nodes = [node.name for node in register_pipelines()["check_parity"].nodes]
    assert nodes == ["check_views", "check_leaks", "measure_parity", "judge_parity"]


def test_a_model_must_be_named(tmp_path):
    with pytest.raises(ConfigurationError, match="architecture=star"):
        measure_parity(variant(tmp_path), None, None, None, OPTIONS)  # type: ignore[arg-type]
