from __future__ import annotations

import threading
import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from multidomain.tensors import EncodedSplit
from multidomain.training.loading import EpochLoader, ahead_of, domain_batches, mixed_batches, ordered_batches


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def threads() -> int:
    return sum(thread.name == "prefetch" for thread in threading.enumerate())


def wait_until_no_thread_is_left() -> None:
    for _ in range(200):
        if not threads():
            return
        time.sleep(0.01)
    raise AssertionError("the thread did not end")


@settings(max_examples=30, deadline=None)
@given(rows=st.integers(0, 30_000), batch_size=st.integers(1, 5000), window=st.integers(1, 20_000))
def test_a_mixed_epoch_has_every_row_once(rows, batch_size, window):
    batches = list(mixed_batches(rows, batch_size, window, generator()))
    assert np.array_equal(np.sort(np.concatenate([[], *batches])), np.arange(rows))
    assert [len(batch) for batch in batches[:-1]] == [batch_size] * (len(batches) - 1)
    assert len(batches) == -(-rows // batch_size)


def test_rows_that_fit_the_window_are_one_full_permutation():
    (batch,) = mixed_batches(20_000, 20_000, 1 << 22, generator())
    assert abs(np.corrcoef(batch, np.arange(20_000))[0, 1]) < 0.03
    assert np.abs(np.diff(batch)).mean() == pytest.approx(20_000 / 3, rel=0.03)  # of two uniform draws


@pytest.mark.parametrize(("window", "block"), [(1 << 18, 16), (1 << 17, 8), (3 * 16_384 + 1, 4), (100, 1)])
def test_larger_splits_are_shuffled_by_blocks_and_within_windows(window, block):
    """A window holds as many blocks whatever its size: a small one is as random as a large one."""
    rows = 10 * window
    (batch,) = mixed_batches(rows, rows, window, generator())
    first = batch[: window // block * block]
    blocks = np.unique(first // block)
    assert len(blocks) == window // block
    assert blocks.max() - blocks.min() > 0.9 * rows / block  # from all over the split
    drawn = min(1000, len(first) // 2)
    assert len(np.unique(first[:drawn] // block)) > 0.9 * drawn * (1 - drawn / len(first))  # not block by block


def test_an_epoch_is_decided_by_seed_and_epoch(encoded):
    split = EncodedSplit(encoded, "train")
    for batching in ("mixed", "domain"):
        order = {
            (seed, epoch): np.concatenate(
                list(EpochLoader(split, batch_size=100, seed=seed, batching=batching).row_batches(epoch))
            ).tolist()
            for seed in (1, 2)
            for epoch in (1, 2)
        }
        again = EpochLoader(split, batch_size=100, seed=1, batching=batching).row_batches(2)
        assert np.concatenate(list(again)).tolist() == order[1, 2]
        assert len({str(rows) for rows in order.values()}) == 4


def test_domain_batches_hold_one_domain_drawn_by_its_rows(encoded):
    split = EncodedSplit(encoded, "train")
    loader = EpochLoader(split, batch_size=50, seed=0, batching="domain")
    batches = [rows for epoch in range(20) for rows in loader.row_batches(epoch)]
    drawn = [set(split.domain[rows].tolist()) for rows in batches]
    assert all(len(domains) == 1 for domains in drawn)
    assert len(batches) == 20 * loader.steps == 20 * 60
    shares = np.bincount(split.domain) / split.rows
    assert np.bincount([next(iter(d)) for d in drawn]) / len(batches) == pytest.approx(shares, abs=0.04)


def test_a_domain_smaller_than_the_batch_gives_all_its_rows():
    batches = list(domain_batches([np.array([7, 8, 9]), np.arange(100, 200)], 40, 200, generator()))
    small = [sorted(batch) for batch in batches if len(batch) < 40]
    assert small
    assert all(batch == [7, 8, 9] for batch in small)
    large = np.concatenate([batch for batch in batches if len(batch) == 40][:2])
    assert len(np.unique(large)) == 80  # no row twice before the domain is used up


def test_batches_come_with_their_tensors(encoded):
    split = EncodedSplit(encoded, "train")
    loader = EpochLoader(split, batch_size=700, seed=3)
    for rows, batch in zip(loader.row_batches(1), loader.epoch(1), strict=True):
        assert torch.equal(batch.categorical, split.batch(rows).categorical)
        assert torch.equal(batch.history["past_item"], split.batch(rows).history["past_item"])


def test_validation_keeps_the_order_and_the_last_partial_batch(encoded):
    split = EncodedSplit(encoded, "validation")
    batches = list(ordered_batches(split, 300, torch.device("cpu")))
    assert [len(batch) for batch in batches] == [300, 300, 200]
    assert np.array_equal(torch.cat([batch.label for batch in batches]), split.label)


def test_the_thread_ends_with_its_items():
    assert list(ahead_of(range(7))) == list(range(7))
    wait_until_no_thread_is_left()


def test_the_thread_ends_when_the_consumer_stops_early(encoded):
    batches = EpochLoader(EncodedSplit(encoded, "train"), batch_size=10, seed=0).epoch(1)
    next(batches)
    assert threads() == 1
    batches.close()
    assert threads() == 0


def test_the_thread_ends_when_its_iterator_is_let_go():
    ahead = ahead_of(iter(int, 1))
    next(ahead)
    del ahead
    wait_until_no_thread_is_left()


def test_an_error_in_the_thread_is_raised_where_it_happened():
    def items():
        yield 1
        yield 2
        raise OSError("the disk went away")

    ahead = ahead_of(items())
    assert [next(ahead), next(ahead)] == [1, 2]
    with pytest.raises(OSError, match="the disk went away"):
        next(ahead)
    with pytest.raises(StopIteration):
        next(ahead)
    wait_until_no_thread_is_left()


def test_the_thread_runs_no_further_ahead_than_its_depth():
    taken = []
    ahead = ahead_of((taken.append(i) or i for i in range(100)), depth=2)
    for _ in range(200):
        if len(taken) == 3:
            break
        time.sleep(0.01)
    time.sleep(0.05)
    assert len(taken) == 3  # two waiting, one in hand
    ahead.close()
