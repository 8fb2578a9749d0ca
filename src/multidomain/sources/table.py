"""Any log that already is one CSV or Parquet table, described by its schema alone.

Columns of user features go to ``users``, those of item features to ``items``: one row per key, with the key's most
frequent value (ties: the smallest). Everything else stays with the impressions, in the order of the file.
"""

from __future__ import annotations

import csv
import gzip
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import DataError, SchemaError
from ..io import embedded
from ..layout import IMPRESSION, Column, TableName, layout
from ..schema import Schema
from . import empty
from .casting import conform, unreadable
from .owners import usual_values

if TYPE_CHECKING:
    import ibis.expr.types as ir

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
        "users": _owned(table, "users", list(plan.users), schema.roles.user, path.name),
        "items": _owned(table, "items", list(plan.items), schema.roles.item, path.name),
    }


def _open(path: Path) -> ir.Table:
    """The file as a lazy table; the columns of a CSV file are text."""
    import duckdb

    name = path.name.lower()
    try:
        if name.endswith(PARQUET):
            return embedded().read_parquet(str(path))
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
    return embedded().read_csv(
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


def _owned(table: ir.Table, name: str, columns: Sequence[str], key: str | None, origin: str) -> ir.Table:
    return empty() if key is None else usual_values(table, key, columns, what=name, origin=origin)
