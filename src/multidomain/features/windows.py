"""Counts over the last days as rows that say when they change.

A window of N days holds the N UTC days before the impression's own. A day's impressions enter it at the next midnight
and leave it N days later, so its counts change at two moments for each day that has impressions. A row at each of these
moments, with the sums so far of what entered and left, says all there is to know: nothing is computed anew on days
without impressions, and the latest row before a moment is right however old it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ibis.expr.types as ir


def changes(daily: ir.Table, *, keys: Sequence[str], days: Sequence[int]) -> ir.Table:
    """One row per key and midnight at which any of the windows changes.

    Args:
        daily: one row per key and UTC day with impressions: the keys, ``day`` (a timestamp), ``count`` and
            ``positives``.
        keys: names of the key columns.
        days: lengths of the windows.

    Returns:
        The keys, ``at`` (a timestamp), and ``count_<N>`` and ``positives_<N>`` from then on for each N of ``days``.
    """
    import ibis

    entering = _moved(daily, keys, after=1, days=days, sign=dict.fromkeys(days, 1))
    leaving = [_moved(daily, keys, after=n + 1, days=days, sign={n: -1}) for n in days]
    moved = ibis.union(entering, *leaving).group_by(*keys, "at")
    names = [f"{what}_{n}" for n in days for what in ("count", "positives")]
    summed = moved.aggregate(**{name: ibis._[name].sum() for name in names})
    so_far = ibis.cumulative_window(group_by=list(keys), order_by="at")
    return summed.select(*keys, "at", **{name: summed[name].sum().over(so_far) for name in names})


def _moved(daily: ir.Table, keys: Sequence[str], *, after: int, days: Sequence[int], sign: dict[int, int]) -> ir.Table:
    """What each day adds to the windows, or takes from them, some days later."""
    import ibis

    columns = {
        f"{what}_{n}": (daily[what] * sign.get(n, 0)).cast("int64") for n in days for what in ("count", "positives")
    }
    return daily.select(*keys, at=(daily.day + ibis.interval(days=after)).cast("timestamp(6)"), **columns)
