"""The bound is of the same arithmetic as the models; the share of it is taken round by round."""

import pytest
import torch

from benchmarks import bound
from benchmarks.drawn import MOVIELENS, Draw
from multidomain.models import build


def test_the_bare_embedding_pools_what_the_input_layer_pools():
    batch = Draw(schema=MOVIELENS).batches(50, 1)[0]
    inputs = build("dnn", MOVIELENS, hidden=[8]).inputs.eval()
    bare = bound.BareEmbedding(MOVIELENS, [batch], 16)
    with torch.no_grad():
        bare.table.weight.copy_(inputs.embedding.table.weight)
        ids, starts, weights = bound.laid_out(MOVIELENS, batch)
        pooled = bare.table(ids, starts, per_sample_weights=weights).view(50, -1, 16)
        torch.testing.assert_close(pooled, inputs(batch).fields)


def test_the_share_of_the_bound_is_that_of_rounds():
    found = {"layers": [1.0, 3.0, 2.0], "embedding": [1.0, 1.0, 2.0], "bare": [4.0, 4.0, 5.0], "configured": [8.0] * 3}
    assert bound.of_bound(found) == {"bare": 0.8, "configured": 0.5}  # of 0.5, 1 and 0.8; of 0.25, 0.5 and 0.5


def test_areas_are_told_with_their_means():
    found = [
        {"seed": 1, "small windows": 0.80, "full permutation": 0.81},
        {"seed": 2, "small windows": 0.82, "full permutation": 0.81},
    ]
    lines = bound._areas(found)
    assert lines[-2:] == ["| 2 | 0.8200 | 0.8100 | +0.0100 |", "| mean | 0.8100 | 0.8100 | +0.0000 |"]


def test_it_runs_in_the_smallest_setting(quick):
    content, text = quick("bound", "--models", "dnn")
    assert content["shares"][0]["bare"] > 0
    assert content["input"]["full permutation"]["rows"] == content["input"]["small windows"]["rows"] == bound.QUICK_ROWS
    assert "| full permutation |" in text


@pytest.mark.parametrize("order", list(bound.ORDERS))
def test_every_order_is_one_that_training_knows(order):
    assert set(bound.ORDERS[order]) <= {"window", "batching"}
