"""Tells a trainer when to go on: called at the end of every step, it counts, and waits for the next order.

Orders are dictionaries: ``{"do": "slice", "seconds": s}`` trains about that long and answers with rows and seconds,
``{"do": "learn", "rows": n, "seconds": s}`` trains on until both are reached and answers with the test AUC at each,
``{"do": "stop"}`` ends the training by raising :class:`Stop`. Time that passes before the end of the first step, or
while it waits or scores, counts for nothing.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

from . import memory

Order = dict[str, Any]
Answer = dict[str, Any]
LEAST, PREPARED = 3, 3  # steps of a slice; batches that a loader may have made ready while it waited
LONG = 1.0  # a step of so many seconds needs no company: reading its batch is nothing


class Stop(Exception):
    """The training has been measured."""


class Clock:
    """Called by an adapter at the end of each step of a training.

    Args:
        orders: gives the next order; waits for it.
        answer: takes what an order came to.
        area: the test AUC of the model as it is.
        batch_size: rows of every step.
        rows: of the epoch; no order trains beyond it.
        profiler: a context around the steps of the order ``profile``, which it yields a function for the text of.
    """

    def __init__(
        self,
        *,
        orders: Callable[[], Order],
        answer: Callable[[Answer], None],
        area: Callable[[], float],
        batch_size: int,
        rows: int,
        profiler: Callable[[], contextlib.AbstractContextManager[Callable[[], str]]] | None = None,
    ) -> None:
        self._orders, self._answer, self._area, self._profiler = orders, answer, area, profiler
        self._batch_size, self._last = batch_size, rows // batch_size
        self._steps, self._trained = 0, 0.0
        self._since = time.perf_counter()
        self._order = self._first()
        next(self._order)

    def __call__(self) -> None:
        """The end of a step.

        Raises:
            Stop: there is nothing more to do.
        """
        self._steps += 1
        self._trained += time.perf_counter() - self._since
        while True:
            try:
                next(self._order)
                break
            except StopIteration:
                self._order = self._obey(self._orders())
        self._since = time.perf_counter()

    @property
    def _ended(self) -> bool:
        return self._steps >= self._last

    def _first(self) -> Iterator[None]:
        """Two steps: the first may start workers, and counts for nothing; the second says how long one takes."""
        yield
        first, self._trained = self._trained, 0.0
        if not self._ended:
            yield
        self._step = self._trained
        self._answer({"first": first, "step": self._step})

    def _obey(self, order: Order) -> Iterator[None]:
        if order["do"] == "stop":
            raise Stop
        return {"slice": self._slice, "learn": self._learn, "profile": self._profile}[order["do"]](order)

    def _slice(self, order: Order) -> Iterator[None]:
        skipped, least = (0, 1) if self._step > LONG else (PREPARED, LEAST)
        for _ in range(skipped):
            if not self._ended:
                yield
        steps, trained, worked = self._steps, self._trained, time.process_time()
        while not self._ended and (self._steps - steps < least or self._trained - trained < order["seconds"]):
            yield
        if self._steps > steps:
            self._step = (self._trained - trained) / (self._steps - steps)
        self._answer(
            {
                "rows": (self._steps - steps) * self._batch_size,
                "seconds": self._trained - trained,
                "processor": time.process_time() - worked,
                "peak": memory.peak(),
                "mapped": memory.mapped(),
                "others": memory.others(),
            }
        )

    def _learn(self, order: Order) -> Iterator[None]:
        found: Answer = {}
        while True:
            if "auc_rows" not in found and (self._ended or self._steps * self._batch_size >= order["rows"]):
                found |= {"auc_rows": self._area(), "rows": self._steps * self._batch_size, "seconds": self._trained}
            if "auc_seconds" not in found and (self._ended or self._trained >= order["seconds"]):
                found |= {"auc_seconds": self._area(), "rows_in_seconds": self._steps * self._batch_size}
            if len(found) == 5:
                break
            yield
        self._answer(found)

    def _profile(self, order: Order) -> Iterator[None]:
        assert self._profiler is not None
        with self._profiler() as text:
            for _ in range(order["steps"]):
                if not self._ended:
                    yield
        self._answer({"profile": text()})
