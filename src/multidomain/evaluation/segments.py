"""Which rows of a test split belong together: by how often user and item were met in training, by day, by session."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import pandas as pd

BOUNDS = (1, 10, 100, 1000)  # of impressions in training
PERIODS = (("day", "D"), ("week", "W"), ("month", "M"), ("year", "Y"))
MOST = 60  # periods in a report: a longer split is told by longer ones
Codes = npt.NDArray[np.int64]


def by_count(count: npt.ArrayLike) -> tuple[Codes, list[str]]:
    """Rows by how often something was met in training (N,): 0, 1-9, 10-99, 100-999, 1,000 and more."""
    between = [f"{low:,}-{high - 1:,}" for low, high in itertools.pairwise(BOUNDS)]
    names = ["none", *between, f"{BOUNDS[-1]:,} and more"]
    return np.searchsorted(BOUNDS, np.asarray(count), side="right").astype(np.int64), names


def by_period(time: pd.Series) -> tuple[str, Codes, list[str]] | None:
    """Rows by day, or by the shortest longer period of which the split has at most ``MOST``.

    Args:
        time: (N,) timestamps in UTC.

    Returns:
        what the periods are, the number of each row's, their names in order; None where there are not two of them.
    """
    import pandas as pd

    for what, unit in PERIODS:
        period = pd.DatetimeIndex(time).tz_localize(None).to_period(unit)
        code, found = pd.factorize(period, sort=True)
        if len(found) <= MOST or unit == "Y":
            names = [str(one.start_time.date()) if unit == "W" else str(one) for one in found]
            return None if len(found) < 2 else (what, code.astype(np.int64), names)
    raise AssertionError


def sessions(user: Codes, time: pd.Series, gap_minutes: float) -> Codes:
    """The session of each row as a number: rows of one user with less than ``gap_minutes`` from one to the next.

    Args:
        user: (N,) numbers.
        time: (N,) timestamps.
        gap_minutes: a longer silence begins a new session.
    """
    moment: Any = np.asarray(time, dtype="datetime64[us]").astype(np.int64)
    order = np.lexsort((moment, user))
    new = np.ones(len(order), dtype=bool)
    new[1:] = (np.diff(user[order]) != 0) | (np.diff(moment[order]) >= gap_minutes * 60_000_000)
    found = np.empty(len(order), dtype=np.int64)
    found[order] = np.cumsum(new) - 1
    return found
