"""The account of one model on its test split: by domain, segment and day, with intervals, beside a reference model."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from . import intervals, metrics, segments
from .breakdown import Scored
from .intervals import Estimate
from .report import LARGEST, domain_codes

if TYPE_CHECKING:
    import pandas as pd

Array = npt.NDArray[Any]
MEASURED = ("auc", "gauc", "pcoc", "logloss")


@dataclass(frozen=True)
class Rows:
    """The test split, N rows in any order.

    Attributes:
        label: zeros and ones.
        score: probabilities.
        domain: names.
        group: what GAUC groups by, as numbers.
        user: who was shown the impression, as numbers.
        time: when.
        user_rows, item_rows: impressions of the user and of the item in the training split.
        reference: probabilities of the reference model; None without one.
        raw: probabilities before calibration; None without one.
    """

    label: Array
    score: Array
    domain: Array
    group: Array
    user: Array
    time: pd.Series
    user_rows: Array
    item_rows: Array
    reference: Array | None = None
    raw: Array | None = None


def account(rows: Rows, *, session_gap_minutes: float) -> tuple[pd.DataFrame, dict[str, Any]]:
    """The table of segments and what there is to say of all rows together.

    Args:
        rows: the scored test split.
        session_gap_minutes: a longer silence of a user begins a new session.

    Returns:
        One row per segment: ``by`` (domain, user activity, item popularity, day …), ``name``, every metric, ends of the
        95 % intervals of AUC and PCOC, and with a reference its AUC, the difference, its ends, and whether the model is
        worse beyond them; and ``{"intervals", "gauc_by", "reference", "calibration"}``, ready for JSON.
    """
    import pandas as pd

    scored = Scored(rows.label, rows.score, rows.group)
    parts = [
        _table(rows, scored, by, code, names, most)
        for by, code, names, most in (
            ("overall", np.zeros(len(rows.label), np.int64), ["overall"], 1),
            *_segments(rows),
        )
    ]
    table = pd.concat(parts, ignore_index=True)
    about = {
        "intervals": _written(intervals.of_model(rows.label, rows.score, rows.group, rows.user)),
        "gauc_by": _gauc_by(rows, session_gap_minutes),
        "reference": None if rows.reference is None else _against(rows, table),
        "calibration": None if rows.raw is None else _calibrated(rows, table),
    }
    return table, about


def _segments(rows: Rows) -> Iterator[tuple[str, Array, list[str], int]]:
    """By what, the segment of each row, the names of the segments, how many are shown."""
    code, names = domain_codes(rows.domain)
    yield "domain", code, names, LARGEST
    yield "user activity", *segments.by_count(rows.user_rows), len(segments.BOUNDS) + 1
    yield "item popularity", *segments.by_count(rows.item_rows), len(segments.BOUNDS) + 1
    periods = segments.by_period(rows.time)
    if periods is not None:
        what, code, names = periods
        yield what, code, names, len(names)


def _table(rows: Rows, scored: Scored, by: str, code: Array, names: list[str], most: int) -> pd.DataFrame:
    """Segments in the order of their names; intervals of the ``most`` largest."""
    import pandas as pd

    table = pd.DataFrame({"by": by, "name": names, **scored.by(code, len(names))})
    order = np.argsort(code, kind="stable")
    ends = np.cumsum(table["rows"].to_numpy())
    largest = set(table["rows"].nlargest(most).index)
    sure = [
        _sure(rows, order[end - count : end]) if number in largest and count else {}
        for number, (end, count) in enumerate(zip(ends, table["rows"], strict=True))
    ]
    columns = ["auc_low", "auc_high", "pcoc_low", "pcoc_high"]
    if rows.reference is not None:
        columns += ["reference_auc", "difference", "difference_low", "difference_high"]
    found = pd.DataFrame(sure, columns=columns, dtype=float)
    table = pd.concat([table, found], axis=1)
    if rows.reference is not None:
        table["worse"] = table["difference_high"] < 0
    return table[table["rows"] > 0]


def _sure(rows: Rows, at: Array) -> dict[str, float]:
    """Intervals of the rows ``at``."""
    label, score, group, user = (part[at] for part in (rows.label, rows.score, rows.group, rows.user))
    found = intervals.of_model(label, score, group, user)
    ends = {f"{name}_{end}": getattr(found[name], end) for name in ("auc", "pcoc") for end in ("low", "high")}
    if rows.reference is None:
        return ends
    paired = intervals.of_difference(label, score, rows.reference[at], group, user)["auc"]
    reference = {"reference_auc": found["auc"].value - paired.value, "difference": paired.value}
    return ends | reference | {"difference_low": paired.low, "difference_high": paired.high}


def _gauc_by(rows: Rows, gap: float) -> dict[str, dict[str, float | None]]:
    """GAUC by the role ``group``, by user and by session, each with the share of rows that count."""
    groups = {"group": rows.group, "user": rows.user}
    if np.asarray(rows.time).min() != np.asarray(rows.time).max():
        groups["session"] = segments.sessions(rows.user, rows.time, gap)
    found = {name: metrics.gauc(rows.label, rows.score, one) for name, one in groups.items()}
    return {name: {"gauc": _defined(value), "coverage": _defined(share)} for name, (value, share) in found.items()}


def _against(rows: Rows, table: pd.DataFrame) -> dict[str, Any]:
    assert rows.reference is not None
    paired = intervals.of_difference(rows.label, rows.score, rows.reference, rows.group, rows.user)
    domains = table[(table["by"] == "domain") & table["worse"]].sort_values("difference")
    return {"differences": _written(paired), "worse_domains": domains["name"].tolist()}


def _calibrated(rows: Rows, table: pd.DataFrame) -> dict[str, Any]:
    """Figures of all rows before and after."""
    assert rows.raw is not None
    before = Scored(rows.label, rows.raw, rows.group).by(np.zeros(len(rows.label), dtype=np.int64), 1)
    sides = {"before": before, "after": table[table["by"] == "overall"].to_dict(orient="list")}
    names = ("pcoc", "ece", "logloss", "auc", "gauc")
    return {side: {name: _defined(found[name][0]) for name in names} for side, found in sides.items()}


def _written(found: dict[str, Estimate]) -> dict[str, dict[str, float | None]]:
    return {
        name: {"value": _defined(one.value), "low": _defined(one.low), "high": _defined(one.high)}
        for name, one in found.items()
    }


def _defined(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
