"""Features of the online store in a bounded time; where it does not answer, those of unknown keys.

After some failed reads in a row the store is left alone for a while, so that a request does not wait for what will
not come; then one request tries again.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

from ..ranker import Given, Ranker, Request
from . import logs
from .holder import Loaded
from .metrics import Metrics
from .settings import Settings

Reason = Literal["timeout", "error", "left alone"]


@dataclass(frozen=True, kw_only=True)
class Found:
    """What the model is given for a request.

    Attributes:
        given: the columns.
        missing: of each view how many keys it knows nothing of.
        degraded: why nothing was read; None where it was.
    """

    given: Given
    missing: dict[str, int]
    degraded: Reason | None = None


class Breaker:
    """Says whether to try: not for ``seconds`` after so many failures in a row, and then once.

    Args:
        failures: in a row.
        seconds: before the next try.
        clock: seconds that only grow.
    """

    def __init__(self, *, failures: int, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._allowed, self._seconds, self._clock = failures, seconds, clock
        self._failed, self._until = 0, 0.0

    @property
    def given_up(self) -> bool:
        """Whether there is nothing to try now."""
        return self._failed >= self._allowed and self._clock() < self._until

    def lets(self) -> bool:
        """Whether to try now; of several that ask while it is open one may."""
        if self._failed < self._allowed:
            return True
        if self._clock() < self._until:
            return False
        self._until = self._clock() + self._seconds
        return True

    def succeeded(self) -> None:
        """The store is there."""
        self._failed = 0

    def failed(self) -> bool:
        """It is not; whether that was the failure with which it is given up."""
        self._failed += 1
        self._until = self._clock() + self._seconds
        return self._failed == self._allowed


class Reading:
    """Reads with so many threads as ``settings.readers``."""

    def __init__(self, *, settings: Settings, metrics: Metrics) -> None:
        self._seconds, self._metrics = settings.store_timeout_seconds, metrics
        self._breaker = Breaker(failures=settings.store_failures, seconds=settings.store_retry_seconds)
        self._threads = ThreadPoolExecutor(settings.readers, thread_name_prefix="reader")
        self._free = asyncio.Semaphore(settings.readers)

    async def given(self, loaded: Loaded, request: Request) -> Found:
        """The request's columns."""
        if self._breaker.given_up:
            return self._defaults(loaded, request, "left alone")
        async with self._free:  # the wait for others is no fault of the store's
            if not self._breaker.lets():
                return self._defaults(loaded, request, "left alone")
            start = time.perf_counter()
            try:
                work = asyncio.get_running_loop().run_in_executor(self._threads, _read, loaded, request)
                async with asyncio.timeout(self._seconds):
                    given, missing = await work
            except TimeoutError as error:
                return self._failed(loaded, request, "timeout", error)
            except Exception as error:
                return self._failed(loaded, request, "error", error)
            finally:
                self._metrics.store.observe(time.perf_counter() - start)
        self._breaker.succeeded()
        return Found(given=given, missing=missing)

    def close(self) -> None:
        """Let go of the threads; one that waits for a store ends when that gives up."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _failed(self, loaded: Loaded, request: Request, reason: Reason, error: Exception) -> Found:
        if self._breaker.failed():
            logs.event("store left alone", level=logging.ERROR, reason=reason, **logs.told(error))
        return self._defaults(loaded, request, reason)

    def _defaults(self, loaded: Loaded, request: Request, reason: Reason) -> Found:
        self._metrics.degraded.labels(reason).inc()
        given, missing = loaded.spare.given(request, stored=False)
        return Found(given=given, missing=missing, degraded=reason)


def _read(loaded: Loaded, request: Request) -> tuple[Given, dict[str, int]]:
    try:
        ranker: Ranker = loaded.rankers.get_nowait()
    except queue.Empty as error:
        raise TimeoutError("every ranker waits for the store") from error
    try:
        return ranker.given(request)
    finally:
        loaded.rankers.put(ranker)
