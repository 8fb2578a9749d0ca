"""Any log that already is one table, described by its schema alone: a CSV or Parquet file, or several alike.

Several are those of a pattern (``clicks/*.parquet``), such as one a day, read in order of their names.

Columns of user features go to ``users``, those of item features to ``items``: one row per key, with the key's most
frequent value (ties: the smallest). Everything else stays with the impressions, in the order of the file.
"""

from __future__ import annotations

import csv
import gzip
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import DataError, SchemaError
from ..io import embedded
from ..layout import IMPRESSION, Column, TableName, layout
from ..schema import Schema
from ..window import Window
from . import empty
from .casting import conform, unreadable
from .owners import usual_values

if TYPE_CHECKING:
    import ibis.expr.types as ir

PARQUET = (".parquet", ".pq")
DELIMITERS = (",", "\t", ";", "|")
CSV = (".csv", ".csv.gz", ".tsv", ".tsv.gz", ".txt")


def read(schema: Schema, files: Mapping[str, Path], window: Window) -> dict[TableName, ir.Table]:
    """Impressions, users and items of a log in one table, all three of the days of ``window``.

    Raises:
        SchemaError: not exactly one file, or pattern.
        DataError: a file cannot be read, lacks a column, has others than the first, or holds values of another type.
    """
    if len(schema.files) != 1:
        raise SchemaError(
            f"{schema.path}: files: source table reads one file, or those of one pattern, not {len(schema.files)}."
        )
    paths = [files[name] for name in sorted(files)]
    origin = str(paths[0]) if len(paths) == 1 else f"{paths[0].parent} ({len(paths):,} files)"
    plan = layout(schema)
    raw = _open(paths)
    columns = plan.all()
    role = schema.roles.impression
    if role is not None:
        columns[role] = columns.get(role) or Column(name=role, type="any", use="roles.impression")
    table = conform(raw, columns, origin=origin, schema_path=schema.path)
    table = table.mutate(**{IMPRESSION: _impression(table, role)})
    if schema.roles.timestamp is not None:
        table = window.known(table, schema.roles.timestamp)
    return {
        "impressions": table.select(*plan.impressions),
        "users": _owned(table, "users", list(plan.users), schema.roles.user, Path(origin).name),
        "items": _owned(table, "items", list(plan.items), schema.roles.item, Path(origin).name),
    }


def _open(paths: Sequence[Path]) -> ir.Table:
    """The files as one lazy table, in their order; the columns of CSV files are text."""
    import duckdb

    headers = {path: _header(path) for path in paths}
    first, other = paths[0], next((path for path in paths if headers[path] != headers[paths[0]]), None)
    if other is not None:
        raise DataError(
            f"{other} has other columns than {first.name}, or in another order or form: {_listed(headers[other])}, not "
            f"{_listed(headers[first])}. Files of one table have the same: write it again, or keep it elsewhere."
        )
    try:
        header = headers[first]
        if isinstance(header, CsvHeader):
            return _open_csv(paths, header)
        return embedded().read_parquet([str(path) for path in paths])
    except (duckdb.Error, OSError) as error:
        raise unreadable(", ".join(map(str, paths[:3])), error) from error


class CsvHeader(NamedTuple):
    """The columns of a CSV file, and what is between them."""

    columns: tuple[str, ...]
    delimiter: str


def _header(path: Path) -> CsvHeader | tuple[str, ...]:
    """The columns of a file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    name = path.name.lower()
    try:
        if name.endswith(PARQUET):
            return tuple(pq.read_schema(path).names)
        if name.endswith(CSV):
            return _csv_header(path)
    except (pa.ArrowException, UnicodeError, csv.Error, OSError, EOFError, zlib.error) as error:
        raise unreadable(str(path), error) from error
    raise DataError(f"{path}: a table is a file ending in {', '.join(PARQUET + CSV)}.")


def _listed(header: CsvHeader | tuple[str, ...]) -> str:
    if isinstance(header, CsvHeader):
        return f"{', '.join(header.columns)} (between them {header.delimiter!r})"
    return ", ".join(header)


def _csv_header(path: Path) -> CsvHeader:
    opener = gzip.open if path.name.lower().endswith(".gz") else open
    with opener(path, "rt", encoding="utf-8-sig", newline="") as stream:
        first = stream.readline()
    delimiter = max(DELIMITERS, key=first.count)
    header = next(csv.reader([first], delimiter=delimiter), [])
    twice = sorted({column for column in header if header.count(column) > 1 or not column.strip()})
    if twice or not header:
        raise DataError(f"{path}: the first line names the columns, each once and none empty; look at: {twice}.")
    return CsvHeader(tuple(header), delimiter)


def _open_csv(paths: Sequence[Path], header: CsvHeader) -> ir.Table:
    """Every line is a row under the header of the first: nothing is guessed, so nothing is skipped."""
    return embedded().read_csv(
        [str(path) for path in paths],
        columns=dict.fromkeys(header.columns, "VARCHAR"),
        header=True,
        auto_detect=False,
        delim=header.delimiter,
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
