"""Drawn rows are rows of their schema."""

from pathlib import Path

import numpy as np
import torch

from benchmarks.drawn import GENRES, MOVIELENS, Draw
from multidomain.models import build
from multidomain.tensors import EncodedSplit

DRAW = Draw(schema=MOVIELENS, shares=GENRES)


def test_a_batch_is_what_a_model_takes():
    batch = DRAW.batches(200, 1)[0]
    logits = build("din", MOVIELENS, hidden=[8])(batch)  # it checks every id, and reads the history
    assert logits.shape == (200,)
    assert bool((batch.history["positives_item_id"] != 0).any())


def test_histories_are_filled_from_the_right_and_as_much_as_said():
    past = DRAW.batches(2000, 1)[0].history
    first, second = (past[name] != 0 for name in MOVIELENS.history)
    assert torch.equal(first, second)
    assert bool((first[:, 1:] >= first[:, :-1]).all())
    assert 0.8 < first.float().mean() < 0.92


def test_domains_come_by_their_shares():
    shares = np.bincount(DRAW.domains(np.random.default_rng(1), 200_000), minlength=18) / 200_000
    assert np.abs(shares - np.array(GENRES) / sum(GENRES)).max() < 0.005


def test_a_batch_may_be_of_one_domain():
    batches = DRAW.batches(50, 20, one_domain=True)
    assert all(len(batch.domain.unique()) == 1 for batch in batches)
    assert len({int(batch.domain[0]) for batch in batches}) > 1


def test_the_same_seed_draws_the_same_rows():
    first, second = (Draw(schema=MOVIELENS, seed=5).batches(20, 1)[0] for _ in range(2))
    assert torch.equal(first.categorical, second.categorical)


def test_what_is_written_is_an_encoded_variant(tmp_path: Path):
    DRAW.write(tmp_path, rows={"train": 100, "validation": 10})
    split = EncodedSplit(tmp_path, "train")
    assert (split.rows, split.inputs) == (100, MOVIELENS)
    assert set(np.unique(split.label)) == {0.0, 1.0}
    assert build("dnn", split.inputs, hidden=[8])(split.batch(slice(0, 100))).shape == (100,)
