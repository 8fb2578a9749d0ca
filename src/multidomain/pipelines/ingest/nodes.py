"""Find a log's raw files and read them into impressions, users and items."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ... import sources
from ...errors import DataError
from ...layout import TABLES
from ...schema import Schema
from ...sources import files

if TYPE_CHECKING:
    import ibis.expr.types as ir

log = logging.getLogger(__name__)


def locate_files(schema: Schema, raw_folder: str) -> dict[str, Path]:
    """The raw files by name, each whole; a relative ``raw_folder`` is meant from the project's folder."""
    return files.locate(schema, files.raw(raw_folder))


def read_log(
    schema: Schema, raw_files: dict[str, Path], sample_share: float | None, parsed_files: Path
) -> tuple[ir.Table, ir.Table, ir.Table, ir.Table, dict[str, Any]]:
    """Impressions, users and items in the types of the schema; with ``sample_share`` those of a share of the users.

    Then the lines of the raw files that were set apart, and the report: what was read of each file, and how many
    impressions ``minimum`` left out. ``parsed_files`` keeps the parts of large files that are finished: a run that was
    stopped goes on there.
    """
    tables = sources.sample(schema, sources.read(schema, raw_files, parsed_files), sample_share)
    impressions, users, items = (tables[name] for name in TABLES)
    report: dict[str, Any] = {"files": tables["files"].to_pyarrow().to_pylist()}
    if schema.minimums:
        every, impressions = impressions, sources.enough(schema, impressions)
        report |= _left_out(schema, every, impressions)
    return impressions, users, items, tables["rejected"], report


def _left_out(schema: Schema, every: ir.Table, kept: ir.Table) -> dict[str, Any]:
    """How many impressions belong to users or items with too few of them.

    Raises:
        DataError: all.
    """
    before, after = (int(table.count().execute()) for table in (every, kept))
    asked = "; ".join(f"{one.owner}: {one.rows} rows, {one.positives} positives" for one in schema.minimums)
    log.info("%s of %s impressions are left out (minimum: %s)", f"{before - after:,}", f"{before:,}", asked)
    if after == 0:
        raise DataError(
            f"Data set '{schema.name}': none of {before:,} impressions belongs to a user and an item that have what "
            f"'minimum' of {schema.path} asks for ({asked}). Lower it there, or read more of the log."
        )
    return {"impressions": before, "left_out": before - after, "minimum": asked}
