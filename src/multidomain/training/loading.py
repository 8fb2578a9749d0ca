"""Batches of an encoded split: which rows, in which order, and made ready while the model works on the last ones.

An order depends on the seed and the epoch alone, so an epoch that was interrupted is drawn again row by row.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import replace
from typing import Generic, TypeVar

import numpy as np
import torch

from ..batch import Batch
from ..layers.synchronised import Place, alone, share, stand
from ..tensors import EncodedSplit
from .sampling import SampledRows

T = TypeVar("T")
BLOCKS = 16_384  # of neighbouring rows, often of one user, that a shuffle window holds: with 4 M rows, 256 rows each


class EpochLoader:
    """The batches of training epochs.

    Of several processes that train together, each gets its share of the rows of every batch, and all have the same
    batches: those of one process. Where a share stands in its batch is told to :mod:`multidomain.layers.synchronised`.

    Args:
        split: the rows to train on.
        batch_size: rows per batch; the last batch of a mixed epoch may hold fewer.
        seed: with the epoch, the only source of randomness.
        batching: ``mixed`` or ``domain``, see :class:`~multidomain.training.config.TrainingConfig`.
        window: rows shuffled together in mixed batches. Of a split with more rows, blocks of ``window / BLOCKS`` rows
            are shuffled first, then the rows within every window of blocks.
        device: where the batches go.
        negative_rate: share of the negatives that an epoch meets; see :mod:`.sampling`.
        weights: float32 (N,), how much each row counts; None: all the same.

    Attributes:
        rows: rows per epoch, of all processes together.
    """

    def __init__(
        self,
        split: EncodedSplit,
        *,
        batch_size: int,
        seed: int,
        batching: str = "mixed",
        window: int = 1 << 22,
        device: torch.device | None = None,
        negative_rate: float = 1.0,
        weights: np.ndarray | None = None,
    ) -> None:
        self.split, self.batch_size, self.seed, self.window = split, batch_size, seed, window
        self.device = device or torch.device("cpu")
        self.weights = weights
        self._sampled = None if negative_rate == 1 else SampledRows(split.label, rate=negative_rate, seed=seed)
        self.rows = split.rows if self._sampled is None else self._sampled.size
        self._mixed = batching != "domain"
        self._by_domain = None if self._mixed or self._sampled else _rows_by_domain(np.asarray(split.domain))

    @property
    def steps(self) -> int:
        """Batches per epoch."""
        return -(-self.rows // self.batch_size)

    def row_batches(self, epoch: int) -> Iterator[np.ndarray]:
        """The row numbers of every batch of an epoch, in order."""
        random = np.random.default_rng([self.seed, epoch])
        if self._sampled is not None:
            return self._of_sampled(self._sampled.rows(epoch), random)
        if self._by_domain is not None:
            return domain_batches(self._by_domain, self.batch_size, self.steps, random)
        return mixed_batches(self.split.rows, self.batch_size, self.window, random)

    def _of_sampled(self, rows: np.ndarray, random: np.random.Generator) -> Iterator[np.ndarray]:
        if self._mixed:
            return (rows[batch] for batch in mixed_batches(len(rows), self.batch_size, self.window, random))
        by_domain = [rows[places] for places in _rows_by_domain(np.asarray(self.split.domain)[rows])]
        return domain_batches(by_domain, self.batch_size, self.steps, random)

    def epoch(self, epoch: int) -> Generator[Batch, None, None]:
        """The batches of an epoch, on the device; close it (or let it go) to end its thread early."""
        if alone():
            return prepared(self.split, self.row_batches(epoch), self.device, self.weights)
        return self._own_share(epoch)

    def _own_share(self, epoch: int) -> Generator[Batch, None, None]:
        places: deque[Place] = deque()  # of the batches that are ready or being made

        def shares() -> Iterator[np.ndarray]:
            for rows in self.row_batches(epoch):
                own = share(len(rows))
                places.append(Place(own.start, len(rows)))
                yield rows[own]

        try:
            with closing(prepared(self.split, shares(), self.device, self.weights)) as batches:
                for batch in batches:
                    stand(places.popleft())
                    yield batch
        finally:
            stand(None)


def ordered_batches(
    split: EncodedSplit, batch_size: int, device: torch.device, rows: slice | None = None
) -> Iterator[Batch]:
    """All rows, or a run of them, in their order, on the device, for validation and prediction."""
    first, last, _ = (rows or slice(None)).indices(split.rows)
    starts = range(first, last, batch_size)
    return prepared(split, (slice(start, min(start + batch_size, last)) for start in starts), device)


def mixed_batches(rows: int, batch_size: int, window: int, random: np.random.Generator) -> Iterator[np.ndarray]:
    """Every row once, shuffled within windows of at least one block."""
    pending = np.empty(0, np.int64)
    for chunk in _shuffled_windows(rows, window, random):
        pending = np.concatenate([pending, chunk])
        whole = len(pending) // batch_size * batch_size
        yield from pending[:whole].reshape(-1, batch_size)
        pending = pending[whole:]
    if len(pending):
        yield pending


def domain_batches(
    by_domain: list[np.ndarray], batch_size: int, steps: int, random: np.random.Generator
) -> Iterator[np.ndarray]:
    """Batches of one domain each: a domain drawn with probability proportional to its rows, then its next rows.

    A domain's rows are gone through in random order and shuffled anew when they are used up, so over an epoch a row may
    come twice or not at all. A domain with fewer rows than `batch_size` gives all of them.
    """
    shares = np.array([len(rows) for rows in by_domain]) / sum(len(rows) for rows in by_domain)
    left = [np.empty(0, np.int64) for _ in by_domain]
    for domain in random.choice(len(by_domain), size=steps, p=shares):
        size = min(batch_size, len(by_domain[domain]))
        if len(left[domain]) < size:
            left[domain] = random.permutation(by_domain[domain])
        yield left[domain][:size]
        left[domain] = left[domain][size:]


def prepared(
    split: EncodedSplit,
    row_batches: Iterable[np.ndarray | slice],
    device: torch.device,
    weights: np.ndarray | None = None,
) -> Generator[Batch, None, None]:
    """The batches of these rows on the device, gathered (and pinned for CUDA) by a thread that runs ahead."""
    pin = device.type == "cuda"
    gathered = (_batch(split, rows, weights) for rows in row_batches)
    with closing(ahead_of((pinned(batch) for batch in gathered) if pin else gathered)) as ahead:
        for batch in ahead:
            yield batch.to(device, non_blocking=True) if pin else batch


def _batch(split: EncodedSplit, rows: np.ndarray | slice, weights: np.ndarray | None) -> Batch:
    batch = split.batch(rows)
    return batch if weights is None else replace(batch, weight=torch.from_numpy(weights[rows]))


def pinned(batch: Batch) -> Batch:
    """The batch in page-locked memory, from which copies to the device overlap with its work."""
    return Batch(
        categorical=batch.categorical.pin_memory(),
        numerical=batch.numerical.pin_memory(),
        history={name: ids.pin_memory() for name, ids in batch.history.items()},
        bags={name: ids.pin_memory() for name, ids in batch.bags.items()},
        domain=batch.domain.pin_memory(),
        label=batch.label.pin_memory(),
        weight=None if batch.weight is None else batch.weight.pin_memory(),
    )


class ahead_of(Generic[T]):
    """Iterates over `items` in a thread that stays up to `depth` items ahead.

    An exception in the thread is raised at the item where it happened. The thread ends with the last item, with
    :meth:`close` and when the iterator is let go.
    """

    def __init__(self, items: Iterable[T], depth: int = 2) -> None:
        self._shared: _Shared[T] = _Shared(items, depth)
        self._thread = threading.Thread(target=self._shared.work, name="prefetch", daemon=True)
        self._thread.start()

    def __iter__(self) -> ahead_of[T]:
        return self

    def __next__(self) -> T:
        if self._shared.stopped:
            raise StopIteration
        item, error, end = self._shared.ready.get()
        if not end and error is None:
            self._shared.room.release()
            return item  # type: ignore[return-value]
        self.close()
        if error is not None:
            raise error
        raise StopIteration

    def close(self) -> None:
        """Ends the thread and waits for it."""
        self._shared.stop()
        if self._thread is not threading.current_thread():
            self._thread.join()

    def __del__(self) -> None:
        self._shared.stop()


class _Shared(Generic[T]):
    """What the thread holds: not the iterator itself, which could then never be let go."""

    def __init__(self, items: Iterable[T], depth: int) -> None:
        self.items = iter(items)
        self.ready: queue.Queue[tuple[T | None, BaseException | None, bool]] = queue.Queue()
        self.room = threading.Semaphore(depth)
        self.stopped = False

    def work(self) -> None:
        try:
            for item in self.items:
                self.room.acquire()
                if self.stopped:
                    return
                self.ready.put((item, None, False))
            self.ready.put((None, None, True))
        except BaseException as error:  # raised again by the consumer
            self.ready.put((None, error, True))

    def stop(self) -> None:
        self.stopped = True
        self.room.release()


def _shuffled_windows(rows: int, window: int, random: np.random.Generator) -> Iterator[np.ndarray]:
    if rows <= window:
        yield random.permutation(rows)
        return
    block = -(-window // BLOCKS)
    blocks = random.permutation(-(-rows // block))
    per_window = max(1, window // block)
    for start in range(0, len(blocks), per_window):
        firsts = blocks[start : start + per_window, None] * block
        numbers = (firsts + np.arange(block)).ravel()
        yield random.permutation(numbers[numbers < rows])


def _rows_by_domain(domain: np.ndarray) -> list[np.ndarray]:
    """The row numbers of every domain that has rows: (N,) -> one array for each."""
    ordered = np.argsort(domain, kind="stable")
    return [rows for rows in np.split(ordered, np.cumsum(np.bincount(domain))[:-1]) if len(rows)]
