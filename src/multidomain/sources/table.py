"""Any log that already is one CSV or Parquet table, in one file or in parts, described by its schema alone.

A column that the files lack is taken from the folders they lie in: ``day=2026-11-22/part-0.parquet`` has the day.

Columns of user features go to ``users``, those of item features to ``items``: one row per key, with the key's most
frequent value (ties: the smallest). Everything else stays with the impressions, in the order of the file.
"""

from __future__ import annotations

import csv
import gzip
import zlib
from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
        SchemaError: not exactly one entry of ``files``.
        DataError: the file cannot be read, lacks a column, or holds values of another type; parts differ in columns.
    """
    if len(schema.files) != 1 or not files:
        found = f"one table, not {len(schema.files)}" if files else "a table, and its file is optional and not there"
        raise SchemaError(f"{schema.path}: files: source table reads {found}.")
    paths = [files[name] for name in sorted(files)]
    path = paths[0] if len(paths) == 1 else paths[0].parent / Path(next(iter(schema.files.values())).path).name
    plan = layout(schema)
    columns = plan.all()
    role = schema.roles.impression
    if role is not None:
        columns[role] = columns.get(role) or Column(name=role, type="any", use="roles.impression")
    raw = _open(paths, set(columns))
    table = conform(raw, columns, origin=str(path), schema_path=schema.path)
    table = table.mutate(**{IMPRESSION: _impression(table, role)})
    if schema.roles.timestamp is not None:
        table = window.known(table, schema.roles.timestamp)
    return {
        "impressions": table.select(*plan.impressions),
        "users": _owned(table, "users", list(plan.users), schema.roles.user, path.name),
        "items": _owned(table, "items", list(plan.items), schema.roles.item, path.name),
    }


def _open(paths: Sequence[Path], used: Set[str]) -> ir.Table:
    """The file, or its parts one after another, as a lazy table; the columns of a CSV file are text."""
    import duckdb
    from pyarrow.lib import ArrowException

    kinds: tuple[tuple[Any, ...], ...] = ((PARQUET, _types, _open_parquet), (CSV, _header, _open_csv))
    for kind, columns, table in kinds:
        if not all(path.name.lower().endswith(kind) for path in paths):
            continue
        reading = paths[0]
        try:
            first = columns(reading, used)
            for reading in paths[1:]:
                _compare(columns(reading, used), first, reading, paths[0])
            opened: ir.Table = table(paths, first, used)
            return opened
        except (duckdb.Error, ArrowException, UnicodeError, csv.Error, OSError, EOFError, zlib.error) as error:
            raise unreadable(str(reading), error) from error
    odd = next((path for path in paths if not path.name.lower().endswith(PARQUET + CSV)), paths[0])
    raise DataError(f"{odd}: a table is a file ending in {', '.join(PARQUET + CSV)}, and so are all its parts.")


def _types(path: Path, used: Set[str]) -> dict[str, tuple[str, str]]:
    """The stored types of the columns of a Parquet file that the schema names."""
    from pyarrow import parquet

    leaves = parquet.read_metadata(path).schema
    found = (leaves.column(place) for place in range(len(leaves.names)))
    return {
        leaf.path: (leaf.physical_type, str(leaf.logical_type)) for leaf in found if leaf.path.split(".")[0] in used
    }


def _compare(here: object, there: object, path: Path, first: Path) -> None:
    """Refuse a part with other columns than the first: a value could be lost where types differ."""
    if here != there:
        raise DataError(
            f"{path} and {first} are parts of one table, but their columns differ.\n  {path.name}: {here}\n"
            f"  {first.name}: {there}\nWrite them with the same columns in the same types."
        )


def _header(path: Path, used: Set[str]) -> tuple[str, list[str]]:
    """The delimiter of a CSV file and the columns that its first line names."""
    del used  # they are told apart by place, so all count
    opener = gzip.open if path.name.lower().endswith(".gz") else open
    with opener(path, "rt", encoding="utf-8-sig", newline="") as stream:
        first = stream.readline()
    delimiter = max(DELIMITERS, key=first.count)
    header = next(csv.reader([first], delimiter=delimiter), [])
    twice = sorted({column for column in header if header.count(column) > 1 or not column.strip()})
    if twice or not header:
        raise DataError(f"{path}: the first line names the columns, each once and none empty; look at: {twice}.")
    return delimiter, header


def _open_parquet(paths: Sequence[Path], types: Mapping[str, object], used: Set[str]) -> ir.Table:
    return embedded().read_parquet(
        [str(path) for path in paths],
        union_by_name=len(paths) > 1,
        hive_partitioning=not used <= {leaf.split(".")[0] for leaf in types},
    )


def _open_csv(paths: Sequence[Path], columns: tuple[str, list[str]], used: Set[str]) -> ir.Table:
    """Every line is a row under the header of the first: nothing is guessed, so nothing is skipped."""
    delimiter, header = columns
    return embedded().read_csv(
        [str(path) for path in paths],
        columns=dict.fromkeys(header, "VARCHAR"),
        hive_partitioning=not used <= set(header),
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
