"""Training on all positives and some of the negatives, and probabilities of the rows as they came all the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from learnable import INPUTS, fitted, probabilities, write_encoded
from torch.nn.functional import binary_cross_entropy_with_logits

from multidomain.batch import Batch
from multidomain.calibration import logistic
from multidomain.errors import ConfigurationError
from multidomain.models import architectures, build
from multidomain.tensors import EncodedSplit
from multidomain.training.config import TrainingConfig
from multidomain.training.loading import EpochLoader, mixed_batches
from multidomain.training.sampling import SampledRows, offset


def corrected(p: np.ndarray, rate: float) -> np.ndarray:
    """q = p / (p + (1 - p) / w), of probabilities (N,) learnt from sampled rows."""
    return p / (p + (1 - p) / rate)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.booleans(), min_size=1, max_size=400), st.floats(0.01, 1.0), st.integers(0, 99), st.integers(1, 9))
def test_an_epoch_has_all_positives_and_the_share_of_the_negatives(labels, rate, seed, epoch):
    label = np.array(labels, np.float32)
    negatives = int((label == 0).sum())
    if negatives and not round(rate * negatives):
        with pytest.raises(ConfigurationError, match=f"leaves none of {negatives} negative training rows"):
            SampledRows(label, rate=rate, seed=seed)
        return
    sampled = SampledRows(label, rate=rate, seed=seed)
    rows = sampled.rows(epoch)
    assert np.array_equal(rows, np.unique(rows))
    assert set(np.flatnonzero(label)) <= set(rows.tolist())
    assert (label[rows] == 0).sum() == round(rate * negatives)
    assert len(rows) == sampled.size
    assert np.array_equal(rows, SampledRows(label, rate=rate, seed=seed).rows(epoch))


def test_every_epoch_and_every_seed_draws_others_and_all_negatives_come_in_time():
    label = np.array([1.0] * 10 + [0.0] * 90)
    sampled = SampledRows(label, rate=0.2, seed=1)
    assert not np.array_equal(sampled.rows(1), sampled.rows(2))
    assert not np.array_equal(sampled.rows(1), SampledRows(label, rate=0.2, seed=2).rows(1))
    met = np.bincount(np.concatenate([sampled.rows(epoch) for epoch in range(400)]), minlength=100)
    assert (met[:10] == 400).all()
    assert met[10:].mean() == pytest.approx(80)
    assert met[10:].min() > 40  # each about 80 times, with a deviation of 8


def test_the_correction_is_that_of_the_paper_in_logits():
    p = np.array([0.001, 0.2, 0.5, 0.9])
    assert corrected(p, 0.1) == pytest.approx([0.0001000901, 0.0243902, 0.0909091, 0.4736842], rel=1e-5)
    logit = np.log(p / (1 - p))
    assert logistic(logit + offset(0.1)) == pytest.approx(corrected(p, 0.1))
    assert offset(1.0) == 0.0


@pytest.mark.parametrize("batching", ["mixed", "domain"])
def test_batches_hold_the_rows_of_the_epoch_and_no_others(encoded: Path, batching: str):
    split = EncodedSplit(encoded, "train")
    loader = EpochLoader(split, batch_size=100, seed=3, batching=batching, negative_rate=0.3)
    sampled = SampledRows(split.label, rate=0.3, seed=3)
    assert loader.rows == sampled.size < len(split)
    batches = list(loader.row_batches(2))
    assert len(batches) == loader.steps == -(-sampled.size // 100)
    met = np.concatenate(batches)
    assert set(met.tolist()) <= set(sampled.rows(2).tolist())
    if batching == "mixed":
        assert np.array_equal(np.sort(met), sampled.rows(2))
    else:
        assert all(len(set(split.domain[rows].tolist())) == 1 for rows in batches)


def test_without_sampling_the_order_of_rows_is_what_it_was(encoded: Path):
    split = EncodedSplit(encoded, "train")
    loader = EpochLoader(split, batch_size=100, seed=3, negative_rate=1.0)
    plain = mixed_batches(len(split), 100, loader.window, np.random.default_rng([3, 5]))
    assert all(np.array_equal(a, b) for a, b in zip(loader.row_batches(5), plain, strict=True))


def test_a_model_trained_on_a_tenth_of_the_negatives_gives_probabilities_of_all_rows(tmp_path: Path):
    folder = write_encoded(tmp_path / "encoded", {"train": 20_000, "validation": 4000})
    split = EncodedSplit(folder, "validation")
    score = probabilities(fitted(folder, tmp_path / "c", epochs=4, negative_rate=0.1), split)
    assert score.mean() / split.label.mean() == pytest.approx(1.0, abs=0.08)
    odds = score / (1 - score)
    uncorrected = (odds / 0.1) / (1 + odds / 0.1)  # what the sampled rows alone would say
    assert uncorrected.mean() / split.label.mean() > 1.4


def test_a_training_of_few_steps_starts_from_the_share_that_was_sampled(tmp_path: Path):
    folder = write_encoded(tmp_path / "encoded", {"train": 2000, "validation": 500})
    split = EncodedSplit(folder, "validation")
    model = fitted(folder, tmp_path / "c", negative_rate=0.01, epochs=1, learning_rate=1e-6)
    assert model.logit_offset == pytest.approx(np.log(0.01))
    assert probabilities(model, split).mean() == pytest.approx(corrected(np.array([0.5]), 0.01)[0], rel=0.5)
    assert fitted(folder, tmp_path / "d", epochs=1).logit_offset == 0.0


@pytest.mark.parametrize("name", architectures())
def test_every_architecture_and_its_serving_form_add_the_offset_once(name: str):
    torch.manual_seed(0)
    model = build(name, INPUTS, embedding_dim=4, hidden=[8, 4]).eval()
    batch = Batch(
        categorical=torch.ones(5, 2, dtype=torch.int32),
        numerical=torch.randn(5, 1),
        history={"past_item": torch.ones(5, 4, dtype=torch.int32)},
        bags={"genres": torch.ones(5, 3, dtype=torch.int32)},
        domain=torch.tensor([0, 1, 2, 3, 0], dtype=torch.int32),
        label=torch.zeros(5),
    )
    plain = model(batch)
    model.logit_offset = -1.5
    for form in (model, model.serving_form()):
        torch.testing.assert_close(form(batch), plain - 1.5, atol=1e-5, rtol=0)


def test_the_same_seed_gives_the_same_model_and_the_rate_makes_a_difference(tmp_path: Path):
    folder = write_encoded(tmp_path / "encoded", {"train": 2000, "validation": 500})
    states = [
        fitted(folder, tmp_path / str(number), epochs=2, negative_rate=rate).state_dict()
        for number, rate in enumerate((0.5, 0.5, 1.0))
    ]
    same = [all(torch.equal(states[0][key], other[key]) for key in states[0]) for other in states[1:]]
    assert same == [True, False]


def test_the_loss_of_a_sampled_batch_is_that_of_the_sampled_probability():
    q = torch.tensor([0.02, 0.3], dtype=torch.float64)
    p = q / (q + (1 - q) * 0.1)  # the inverse of the paper's formula
    label = torch.tensor([0.0, 1.0], dtype=torch.float64)
    loss = binary_cross_entropy_with_logits(torch.logit(q) - offset(0.1), label)
    assert loss.item() == pytest.approx(-(torch.log(1 - p[0]) + torch.log(p[1])).item() / 2)


@pytest.mark.parametrize("rate", [0, -0.1, 1.5, "0.1", None, True, float("nan")])
def test_a_rate_that_is_no_share_is_an_error(rate):
    with pytest.raises(ConfigurationError, match="negative_rate must be a number above 0 and at most 1"):
        TrainingConfig(negative_rate=rate)


def test_settings_that_came_later_leave_what_was_identified_before_as_it_was():
    assert "negative_rate" not in TrainingConfig().settings()
    assert "sample_weight" not in TrainingConfig().settings()
    assert TrainingConfig(negative_rate=0.5).settings()["negative_rate"] == 0.5
    assert TrainingConfig(sample_weight=True).settings()["sample_weight"] is True
