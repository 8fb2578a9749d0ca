"""Rows that count more or less in training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from learnable import fitted, probabilities, write_encoded

from multidomain.errors import ConfigurationError, DataError
from multidomain.tensors import EncodedSplit
from multidomain.training.config import TrainingConfig
from multidomain.training.loading import EpochLoader
from multidomain.training.weights import sample_weights


def with_weights(folder: Path, weight: np.ndarray, rows: int = 2000) -> Path:
    """The small log with weights beside its training rows."""
    write_encoded(folder, {"train": rows, "validation": 500})
    np.save(folder / "train/weight.npy", weight.astype(np.float32))
    return folder


def test_weights_have_mean_one_and_travel_with_their_rows(tmp_path: Path):
    folder = with_weights(tmp_path / "encoded", np.arange(2000.0))
    split = EncodedSplit(folder, "train")
    weights = sample_weights(split)
    assert weights.mean() == pytest.approx(1.0, rel=1e-5)
    assert weights[1000] == pytest.approx(1000 / 999.5)
    loader = EpochLoader(split, batch_size=300, seed=0, weights=weights)
    for rows, batch in zip(loader.row_batches(1), loader.epoch(1), strict=True):
        assert np.array_equal(batch.weight.numpy(), weights[rows])
    assert next(EpochLoader(split, batch_size=300, seed=0).epoch(1)).weight is None


def test_a_row_of_weight_zero_has_no_part_in_training(tmp_path: Path):
    weight = (np.arange(2000) % 2).astype(float)
    folder = with_weights(tmp_path / "one", weight)
    other = with_weights(tmp_path / "other", weight)
    label = np.load(other / "train/label.npy")
    label[::2] = 1 - label[::2]  # of rows that do not count
    np.save(other / "train/label.npy", label)
    models = [
        fitted(place, tmp_path / f"c{number}", sample_weight=True) for number, place in enumerate((folder, other))
    ]
    split = EncodedSplit(folder, "validation")
    assert np.array_equal(*(probabilities(model, split) for model in models))


def test_equal_weights_are_no_weights(tmp_path: Path):
    folder = with_weights(tmp_path / "encoded", np.full(2000, 3.0))
    split = EncodedSplit(folder, "validation")
    weighted, plain = (
        probabilities(fitted(folder, tmp_path / str(chosen), sample_weight=chosen), split) for chosen in (True, False)
    )
    assert weighted == pytest.approx(plain, abs=1e-5)


def test_a_large_weight_of_the_positives_raises_the_scores(tmp_path: Path):
    folder = with_weights(tmp_path / "encoded", np.ones(2000))
    label = np.load(folder / "train/label.npy")
    np.save(folder / "train/weight.npy", np.where(label > 0.5, 5.0, 1.0).astype(np.float32))
    split = EncodedSplit(folder, "validation")
    weighted, plain = (
        probabilities(fitted(folder, tmp_path / str(chosen), sample_weight=chosen), split) for chosen in (True, False)
    )
    assert weighted.mean() > plain.mean() + 0.1


def test_bad_weights_are_counted(tmp_path: Path):
    weight = np.ones(2000)
    weight[[5, 7]], weight[9], weight[11] = np.nan, np.inf, -2.0
    split = EncodedSplit(with_weights(tmp_path / "encoded", weight), "train")
    wanted = r"4 of 2,000 rows of the train split have no usable weight: 3 missing or not finite, 1 below 0; .* row 5"
    with pytest.raises(DataError, match=wanted):
        sample_weights(split)


def test_weights_that_are_all_zero_and_weights_that_are_not_there_are_errors(tmp_path: Path):
    nothing = EncodedSplit(with_weights(tmp_path / "zero", np.zeros(2000)), "train")
    with pytest.raises(DataError, match="the weights of all 2,000 rows of the train split are 0"):
        sample_weights(nothing)
    without = EncodedSplit(write_encoded(tmp_path / "none", {"train": 50, "validation": 50}), "train")
    with pytest.raises(ConfigurationError, match=r"roles: \{weight: <column of the impressions>\}"):
        sample_weights(without)


def test_other_weights_are_other_training_rows(tmp_path: Path):
    digests = {
        EncodedSplit(with_weights(tmp_path / str(value), np.full(2000, value)), "train").digest()
        for value in (1.0, 2.0)
    }
    plain = EncodedSplit(write_encoded(tmp_path / "none", {"train": 2000, "validation": 500}), "train")
    assert len(digests | {plain.digest()}) == 3


def test_a_switch_that_is_no_switch_is_an_error():
    with pytest.raises(ConfigurationError, match="sample_weight must be true or false, got 'dwell'"):
        TrainingConfig(sample_weight="dwell")
