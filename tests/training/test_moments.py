"""After a short training, evaluation uses the moments of the data and not those the buffers started from."""

from __future__ import annotations

import pytest
import torch
from learnable import write_encoded

from multidomain.models import build
from multidomain.tensors import EncodedSplit
from multidomain.training.loading import EpochLoader
from multidomain.training.moments import SETTLED, settle_moments


@pytest.fixture
def split(tmp_path) -> EncodedSplit:
    return EncodedSplit(write_encoded(tmp_path / "encoded", {"train": 600}), "train")


def loader(split: EncodedSplit, batch_size: int) -> EpochLoader:
    return EpochLoader(split, batch_size=batch_size, seed=3)


def test_a_training_of_six_steps_is_evaluated_with_each_domains_own_variance(split):
    torch.manual_seed(0)
    model = build("star", split.inputs, hidden=[8])
    assert settle_moments(model, loader(split, 100), epoch=1) == SETTLED - 6
    with torch.no_grad():
        z = model.eval().inputs(split.batch(slice(None))).z
    for domain in range(3):
        rows = z[torch.from_numpy(split.domain == domain)]
        torch.testing.assert_close(model.normalization.running_mean[domain], rows.mean(0), atol=0.02, rtol=0.3)
        own = model.normalization.running_var[domain]
        assert (own < 2 * rows.var(0) + 1e-4).all()  # 1 at the start


def test_batch_normalization_settles_too_and_no_weight_moves(split):
    model = build("dnn", split.inputs, hidden=[8])
    before = {name: value.clone() for name, value in model.named_parameters()}
    settle_moments(model, loader(split, 100), epoch=1)
    assert (model.normalization.running_var < 0.5).any()
    assert all(torch.equal(value, before[name]) for name, value in model.named_parameters())
    assert not model.training


def test_nothing_is_shown_after_enough_batches_or_without_such_layers(split):
    assert settle_moments(build("star", split.inputs, hidden=[8]), loader(split, 4), epoch=1) == 0
    assert settle_moments(build("star", split.inputs, hidden=[8]), loader(split, 50), epoch=20) == 0
    assert settle_moments(build("star", split.inputs, hidden=[8], normalization="layer"), loader(split, 100), 1) == 0
