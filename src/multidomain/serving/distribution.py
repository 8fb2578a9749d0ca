"""How far the values that requests are given differ from those of tables, by ``multidomain.evaluation.drift``'s PSI.

Values are told apart as there, the offline side standing for the training rows: of texts and of what bags hold the 50
most frequent, numbers and the lengths of histories cut at their quantiles. What is missing is a value of its own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Any

from ..features.views import Column

if TYPE_CHECKING:
    import numpy as np

    from ..evaluation.drift import Array


def compare(offline: Sequence[Any], online: Sequence[Any], column: Column, *, history: bool) -> dict[str, float]:
    """``psi`` of the values of one feature, and ``chance``, what it stays below where both are of one population.

    Args:
        offline: a value for each row, None for none.
        online: likewise.
        column: the feature.
        history: whether its lists are compared by their lengths.
    """
    from ..evaluation import drift

    a, b = counts(offline, online, column, history=history)
    return {"psi": float(drift.psi(a, b)), "chance": float(drift.chance(a, b))}


def counts(offline: Sequence[Any], online: Sequence[Any], column: Column, *, history: bool) -> tuple[Array, Array]:
    """How often each of B values occurs on both sides: (B,), (B,), the last value being none at all."""
    if column.list and history:
        return _of_numbers([len(value or ()) for value in offline], [len(value or ()) for value in online], apart=1)
    if column.list:
        return _of_values(_unpacked(offline), _unpacked(online))
    if column.type == "string":
        return _of_values(offline, online)
    return _of_numbers(offline, online)


def _unpacked(lists: Sequence[Any]) -> list[Hashable]:
    """Each value of each list; None of an empty one."""
    return [value for found in lists for value in (found or [None])]


def _of_values(offline: Sequence[Hashable], online: Sequence[Hashable]) -> tuple[Array, Array]:
    import numpy as np

    from ..evaluation.drift import VALUES

    frequent = Counter(value for value in offline if value is not None).most_common(VALUES)
    place = {value: i for i, (value, _) in enumerate(frequent)}
    others, none = len(place), len(place) + 1

    def counted(values: Sequence[Hashable]) -> Array:
        numbers = [none if value is None else place.get(value, others) for value in values]
        return np.bincount(np.array(numbers, dtype=np.int64), minlength=none + 1)

    return counted(offline), counted(online)


def _of_numbers(offline: Sequence[Any], online: Sequence[Any], *, apart: float | None = None) -> tuple[Array, Array]:
    """``apart``: a cut that there is in any case."""
    import numpy as np

    from ..evaluation.drift import PARTS

    a, b = _numbers(offline), _numbers(online)
    known = a[~np.isnan(a)]
    cuts = np.quantile(known, np.arange(1, PARTS) / PARTS) if len(known) else np.zeros(0)
    edges = np.unique(cuts if apart is None else np.append(cuts, apart))

    def counted(values: Array) -> Array:
        parts = np.where(np.isnan(values), len(edges) + 1, np.searchsorted(edges, values, side="right"))
        return np.bincount(parts, minlength=len(edges) + 2)

    return counted(a), counted(b)


def _numbers(values: Sequence[Any]) -> np.ndarray[Any, Any]:
    import numpy as np

    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)
