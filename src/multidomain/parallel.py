"""Doing the next things while one is finished, without losing their order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")
WORKERS = 2


def in_order(function: Callable[[Item], Result], items: Iterable[Item], *, workers: int = WORKERS) -> Iterator[Result]:
    """``map(function, items)`` on threads: worth it where the work is done outside Python (Arrow, NumPy, files).

    At most ``workers + 1`` items are taken ahead of the result that is asked for, by the caller's own thread.
    """
    waiting: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
