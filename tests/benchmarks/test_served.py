"""Serving forms beside each other."""

import torch

from benchmarks import served
from benchmarks.drawn import MOVIELENS, Draw


def test_a_model_to_score_with_has_met_every_domain():
    batch = Draw(schema=MOVIELENS).batches(200, 1)[0]
    model = served.trained("shared_bottom", (8, 4))
    unknown = Draw(schema=MOVIELENS).batches(200, 1)[0]
    unknown.domain.fill_(MOVIELENS.domains)
    with torch.inference_mode():
        assert bool((model(batch) != model(unknown)).all())  # otherwise it would serve all rows with one tower


def test_it_runs_in_the_smallest_setting(quick):
    content, text = quick("served")
    assert [(line["rows"], line["domains"]) for line in content["runs"]] == [(100, "all"), (100, "one")]
    assert set(content["runs"][0]["seconds"]) == set(served.MODELS)
    assert "star / shared_bottom" in text


def test_the_ratio_is_held_to_its_ceiling(head):
    run = {"rows": 100, "domains": "all", "seconds": {"star": [0.00104, 0.002], "shared_bottom": [0.001, 0.002]}}
    slow = {"rows": 100, "domains": "one", "seconds": {"star": [0.0011], "shared_bottom": [0.001]}}
    lines = served.markdown({"runs": [run, slow], "head": head})
    assert lines[-2:] == ["| 100 | all | 1.520 | 1.500 | 1.020 | yes |", "| 100 | one | 1.100 | 1.000 | 1.100 | no |"]
