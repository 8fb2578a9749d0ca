"""From a vendor's files to three tables: impressions, users and items.

One module per log (``movielens``), and ``table`` for any log that already is one table. Each has
``read(schema, files, work) -> dict`` of Ibis tables; ``work`` is a folder to keep finished parts in (``table`` needs
none, and is told the window instead, since it makes users and items of the impressions). One that sets
lines of its files apart also gives ``rejected`` (file, line, reason, text) and ``files`` (file, lines, rows, rejected),
as :func:`multidomain.sources.text.together` makes them.
"""

from __future__ import annotations

import atexit
import functools
import importlib
import pkgutil
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ConfigurationError, SchemaError, unknown_key
from ..layout import IMPRESSION, PLACEHOLDER, TABLES, Column, Layout, TableName, key, layout
from ..schema import Schema
from ..window import Window

if TYPE_CHECKING:
    import ibis.expr.types as ir

_HELPERS = ("files", "casting", "owners", "fetch", "objects", "patterns")
_SAMPLE_STEPS = 1_000_000
EVERYTHING = Window()


def names() -> list[str]:
    """Every source a schema can name."""
    return sorted(
        module.name for module in pkgutil.iter_modules(__path__) if not module.ispkg and module.name not in _HELPERS
    )


def read(
    schema: Schema, files: Mapping[str, Path], work: Path | None = None, window: Window = EVERYTHING
) -> dict[str, ir.Table]:
    """The log's ``impressions``, ``users`` and ``items``, with columns and types as :mod:`multidomain.layout` has them.

    Also ``rejected`` and ``files``, see above; empty where the source sets no lines apart. Without ``work`` finished
    parts are kept in a temporary folder of this process. Of impressions only the days of ``window`` are there, and
    where users and items are made of them, they are made of those.

    Raises:
        SchemaError: ``source`` names no source.
        ConfigurationError: days are asked for of a log without times.
        DataError: a file cannot be read, lacks a column, or holds values of another type.
    """
    if schema.source not in names():
        raise SchemaError(f"{schema.path}: source: {unknown_key(schema.source, names())}")
    if window != EVERYTHING and schema.roles.timestamp is None:
        raise ConfigurationError(
            f"window: {schema.path} names no roles.timestamp, so nobody knows which day its rows are of. Name the "
            "column, or leave window.until out."
        )
    plan = layout(schema)
    module = importlib.import_module(f".{schema.source}", __name__)
    if schema.source == "table":  # already conformed; users and items are of these rows
        tables: dict[str, ir.Table] = module.read(schema, files, window)
    else:
        tables = module.read(schema, files, work or _temporary())
    said = {name: tables.pop(name, None) for name in SAID}
    said = {name: nothing(name) if table is None else table for name, table in said.items()}
    if schema.source != "table":
        tables = {table: _conformed(schema, plan, table, tables) for table in TABLES}
        if schema.roles.timestamp is not None:
            tables["impressions"] = window.known(tables["impressions"], schema.roles.timestamp)
    return tables | said


def enough(schema: Schema, impressions: ir.Table) -> ir.Table:
    """The impressions of those users and items that have as many as ``minimum`` asks for; all look at the same rows."""
    kept, label = impressions, schema.labels[0].column
    for minimum in schema.minimums:
        name = key(schema, f"{minimum.owner}s")  # type: ignore[arg-type]
        assert name is not None
        positives = (impressions[label] == 1).fill_null(False)
        counted = impressions.group_by(name).agg(n=impressions.count(), positives=positives.sum())
        large = counted.filter(counted.n >= minimum.rows, counted.positives >= minimum.positives)
        kept = kept.semi_join(large, name)
    return kept


SAID: Mapping[str, Mapping[str, str]] = {
    "rejected": {"file": "string", "line": "int64", "reason": "string", "text": "string"},
    "files": {"file": "string", "lines": "int64", "rows": "int64", "rejected": "int64"},
}


def nothing(name: str) -> ir.Table:
    """The table ``rejected`` or ``files`` of a source that sets no lines apart."""
    import ibis

    return ibis.memtable([], schema=dict(SAID[name]))


@functools.cache
def _temporary() -> Path:
    folder = tempfile.mkdtemp(prefix="multidomain-source-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


def sample(schema: Schema, tables: Mapping[str, ir.Table], share: float | None) -> dict[str, ir.Table]:
    """Keep a share of the users with all their rows (of the rows, where the log has no users): the same ones each time.

    Raises:
        ConfigurationError: ``share`` is not above 0 and at most 1.
    """
    if share is None:
        return dict(tables)
    if not 0 < share <= 1:
        raise ConfigurationError(
            f"sample_share={share}: a share is above 0 and at most 1; leave it out to read all rows."
        )
    by = schema.roles.user or IMPRESSION
    return {
        name: _sampled(table, by, share) if name in TABLES and by in table.columns else table
        for name, table in tables.items()
    }


def empty() -> ir.Table:
    """The table of users, or items, of a log that has none."""
    import ibis
    import pyarrow as pa

    return ibis.memtable(pa.table({PLACEHOLDER: pa.array([], pa.string())}))


def _sampled(table: ir.Table, by: str, share: float) -> ir.Table:
    step = (table[by].cast("string").fill_null("").hash() % _SAMPLE_STEPS).abs()
    return table.filter(step < share * _SAMPLE_STEPS)


def _conformed(schema: Schema, plan: Layout, name: TableName, tables: Mapping[str, ir.Table]) -> ir.Table:
    from .casting import conform

    columns = plan.table(name)
    if not columns:
        return empty()
    table = tables[name]
    if name == "impressions":
        table = _with_owned(schema, table, columns, tables)
    origin = f"data set '{schema.name}', table '{name}' of source '{schema.source}',"
    return conform(table, columns, origin=origin, schema_path=schema.path)


def _with_owned(
    schema: Schema, impressions: ir.Table, columns: Mapping[str, Column], tables: Mapping[str, ir.Table]
) -> ir.Table:
    """Impressions with the columns the schema wants there but the vendor keeps with users or items."""
    for owner in ("users", "items"):
        name, table = key(schema, owner), tables[owner]
        wanted = [c for c in columns if c not in impressions.columns and c in table.columns]
        if name is not None and wanted:
            owned = table.select(owner=table[name], **{column: table[column] for column in wanted})
            impressions = impressions.left_join(owned, impressions[name] == owned.owner).drop("owner")
    return impressions
