"""One row per key from rows that repeat what they say of it: the most frequent value of every column."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from .casting import execute

if TYPE_CHECKING:
    import ibis.expr.types as ir

log = logging.getLogger(__name__)


def usual_values(table: ir.Table, key: str, columns: Sequence[str], *, what: str, origin: str) -> ir.Table:
    """One row per value of ``key``, in order of it, with the key's most frequent value of every column.

    Missing values do not count; of equally frequent ones the smallest is taken. Keys whose rows disagree are counted in
    a warning that names ``what`` they are and the ``origin`` of the rows.
    """
    rows = table.filter(table[key].notnull())
    owners = rows.select(key).distinct()
    usual = {column: _usual(rows, key, column) for column in columns if column != key}
    _report_disagreement(what, usual, origin)
    for column, values in usual.items():
        right = values.select("owner", **{column: values.value})
        owners = owners.left_join(right, owners[key] == right.owner).drop("owner")
    return owners.select(*columns).order_by(key)


def _usual(rows: ir.Table, key: str, column: str) -> ir.Table:
    """Per key: the most frequent value, in how many rows the column is there, and in how many it has that value."""
    import ibis

    there = rows.filter(rows[column].notnull())
    counted = there.group_by(owner=there[key], value=there[column]).agg(n=there.count())
    best = counted.value.first(order_by=[ibis.desc(counted.n), counted.value])
    return counted.group_by("owner").agg(value=best, rows=counted.n.sum(), agree=counted.n.max())


def _report_disagreement(what: str, usual: Mapping[str, ir.Table], origin: str) -> None:
    import ibis

    if not usual:
        return
    counts = [
        values.aggregate(
            owners=values.count(),
            disagree=(values.rows > values.agree).sum().fill_null(0),
            rows=(values.rows - values.agree).sum(),
        ).mutate(column=ibis.literal(column))
        for column, values in usual.items()
    ]
    for row in execute(ibis.union(*counts) if len(counts) > 1 else counts[0], origin).itertuples():
        if row.disagree > 0:
            log.warning(
                "%s: %s of %s %s have rows that disagree on '%s' (%s rows differ); each gets its most frequent value. "
                "If '%s' changes from row to row, declare it with owner: context.",
                origin,
                f"{int(row.disagree):,}",
                f"{int(row.owners):,}",
                what,
                row.column,
                f"{int(row.rows):,}",
                row.column,
            )
