"""Any log that already is one CSV or Parquet table, described by its schema alone.

Columns of user features go to ``users``, those of item features to ``items``: one row per key, with the key's most
frequent value (ties: the smallest). Everything else stays with the impressions, in the order of the file.
"""

from __future__ import annotations

import csv
import gzip
import logging
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import DataError, SchemaError
from ..io import connection
from ..layout import IMPRESSION, Column, TableName, layout
from ..schema import Schema
from . import empty
from .casting import conform, execute, unreadable

if TYPE_CHECKING:
    import ibis.expr.types as ir

log = logging.getLogger(__name__)
PARQUET = (".parquet", ".pq")
DELIMITERS = (",", "\t", ";", "|")
CSV = (".csv", ".csv.gz", ".tsv", ".tsv.gz", ".txt")


def read(schema: Schema, files: Mapping[str, Path], work: Path) -> dict[TableName, ir.Table]:
    """Impressions, users and items of a log in one table.

    Raises:
        SchemaError: not exactly one file.
        DataError: the file cannot be read, lacks a column, or holds values of another type.
    """
    del work  # the table engine reads the file by itself
    if len(files) != 1:
        raise SchemaError(f"{schema.path}: files: source table reads one file, not {len(files)}.")
    path = next(iter(files.values()))
    plan = layout(schema)
    raw = _open(path)
    columns = plan.all()
    role = schema.roles.impression
    if role is not None:
        columns[role] = columns.get(role) or Column(name=role, type="any", use="roles.impression")
    table = conform(raw, columns, origin=str(path), schema_path=schema.path)
    table = table.mutate(**{IMPRESSION: _impression(table, role)})
    return {
        "impressions": table.select(*plan.impressions),
        "users": owned(table, "users", list(plan.users), schema.roles.user, path),
        "items": owned(table, "items", list(plan.items), schema.roles.item, path),
    }


def _open(path: Path) -> ir.Table:
    """The file as a lazy table; the columns of a CSV file are text."""
    import duckdb

    name = path.name.lower()
    try:
        if name.endswith(PARQUET):
            return connection().read_parquet(str(path))
        if name.endswith(CSV):
            return _open_csv(path)
    except (duckdb.Error, UnicodeError, csv.Error, OSError, EOFError, zlib.error) as error:
        raise unreadable(str(path), error) from error
    raise DataError(f"{path}: a table is a file ending in {', '.join(PARQUET + CSV)}.")


def _open_csv(path: Path) -> ir.Table:
    """Every line is a row under the header of the first: nothing is guessed, so nothing is skipped."""
    opener = gzip.open if path.name.lower().endswith(".gz") else open
    with opener(path, "rt", encoding="utf-8-sig", newline="") as stream:
        first = stream.readline()
    delimiter = max(DELIMITERS, key=first.count)
    header = next(csv.reader([first], delimiter=delimiter), [])
    twice = sorted({column for column in header if header.count(column) > 1 or not column.strip()})
    if twice or not header:
        raise DataError(f"{path}: the first line names the columns, each once and none empty; look at: {twice}.")
    return connection().read_csv(
        str(path),
        columns=dict.fromkeys(header, "VARCHAR"),
        header=True,
        auto_detect=False,
        delim=delimiter,
        quote='"',
        escape='"',
    )


def _impression(table: ir.Table, role: str | None) -> Any:
    import ibis

    if role is None:
        return ibis.row_number().cast("int64")
    column = table[role]
    return column.cast("int64" if column.type().is_integer() else "string")


def owned(table: ir.Table, name: str, columns: Sequence[str], key: str | None, path: Path) -> ir.Table:
    """One row per key, in order, with the most frequent value of every column; a warning where rows disagree."""
    if key is None:
        return empty()
    rows = table.filter(table[key].notnull())
    owners = rows.select(key).distinct()
    usual = {column: _usual(rows, key, column) for column in columns if column != key}
    _report_disagreement(name, usual, path)
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


def _report_disagreement(name: str, usual: Mapping[str, ir.Table], path: Path) -> None:
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
    for row in execute(ibis.union(*counts) if len(counts) > 1 else counts[0], str(path)).itertuples():
        if row.disagree > 0:
            log.warning(
                "%s: %s of %s %s have rows that disagree on '%s' (%s rows differ); each gets its most frequent value. "
                "If '%s' changes from row to row, declare it with owner: context.",
                path.name,
                f"{int(row.disagree):,}",
                f"{int(row.owners):,}",
                name,
                row.column,
                f"{int(row.rows):,}",
                row.column,
            )
