"""Requests that came together, scored in one forward.

While a forward runs, what arrives waits; the next forward takes all of it, up to a limit. A single caller waits for
nobody, and many share what a forward costs. Rows do not influence each other, so neither do requests.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from ..ranker import Given
from .holder import Loaded
from .metrics import Metrics
from .settings import Settings

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pyarrow as pa

    Scores: TypeAlias = npt.NDArray[np.float64]
    Rows: TypeAlias = Given | pa.Table


@dataclass(frozen=True, kw_only=True, eq=False)
class Waiting:
    """Rows to score, and who waits for that."""

    loaded: Loaded
    rows: Rows
    size: int
    answer: asyncio.Future[Scores]


class Batcher:
    """Scores in a thread of its own, one forward at a time."""

    def __init__(self, *, settings: Settings, metrics: Metrics) -> None:
        self._settings, self._metrics = settings, metrics
        self._waiting: deque[Waiting] = deque()
        self._came = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="scorer")

    async def score(self, loaded: Loaded, rows: Rows) -> Scores:
        """Probabilities (N,) of N rows."""
        answer: asyncio.Future[Scores] = asyncio.get_running_loop().create_future()
        size = len(rows.candidates) if isinstance(rows, Given) else len(rows)
        self._waiting.append(Waiting(loaded=loaded, rows=rows, size=size, answer=answer))
        self._came.set()
        return await answer

    async def run(self) -> None:
        """Score what comes, until cancelled."""
        while True:
            await self._came.wait()
            if self._settings.batch_wait_ms:
                await asyncio.sleep(self._settings.batch_wait_ms / 1000)
            if together := self._next():
                await self._forward(together)

    def close(self) -> None:
        """Let go of the thread."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _next(self) -> list[Waiting]:
        """The first that still waits, and those after it that go with it: of the same model, within the limits."""
        together: list[Waiting] = []
        rows = 0
        while self._waiting and len(together) < self._settings.batch_requests:
            first = self._waiting[0]
            if not first.answer.done():  # done: nobody waits any more
                if together and (
                    first.loaded is not together[0].loaded or rows + first.size > self._settings.batch_rows
                ):
                    break
                together.append(first)
                rows += first.size
            self._waiting.popleft()
        if not self._waiting:
            self._came.clear()
        return together

    async def _forward(self, together: list[Waiting]) -> None:
        loop = asyncio.get_running_loop()
        loaded, rows = together[0].loaded, [one.rows for one in together]
        start = time.perf_counter()
        try:
            found = await loop.run_in_executor(self._thread, scored, loaded.scorer, rows)
        except Exception as error:
            if len(together) == 1:
                _tell(together[0], error)
                return
            for one in together:  # one that cannot be scored must not take the others with it
                await self._forward([one])
            return
        self._metrics.forward.observe(time.perf_counter() - start)
        self._metrics.joined.observe(len(together))
        self._metrics.rows.observe(sum(one.size for one in together))
        for one, scores in zip(together, found, strict=True):
            _tell(one, scores)


def scored(scorer: Any, rows: Sequence[Rows]) -> list[Scores]:
    """Of each request its scores, by one call of the model."""
    import numpy as np
    import pyarrow as pa

    if len(rows) == 1 and isinstance(rows[0], Given) and hasattr(scorer, "score_candidates"):
        return [scorer.score_candidates(rows[0].candidates, rows[0].shared)]
    names = list(scorer.columns)
    tables = [(one.table() if isinstance(one, Given) else one).select(names) for one in rows]
    scores = scorer.score(pa.concat_tables(tables).combine_chunks())
    ends = np.cumsum([len(table) for table in tables])
    return list(np.split(scores, ends[:-1]))


def _tell(one: Waiting, what: Scores | Exception) -> None:
    with contextlib.suppress(asyncio.InvalidStateError):  # it stopped waiting
        if isinstance(what, Exception):
            one.answer.set_exception(what)
        else:
            one.answer.set_result(what)
