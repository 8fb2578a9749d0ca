"""Find a log's raw files and read them into impressions, users and items."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ... import sources
from ...errors import DataError
from ...layout import TABLES
from ...schema import Schema
from ...sources import files
from ...window import Window

if TYPE_CHECKING:
    import ibis.expr.types as ir

log = logging.getLogger(__name__)


def locate_files(schema: Schema, raw_folder: str) -> dict[str, Path]:
    """The raw files by name, each whole; a relative ``raw_folder`` is meant from the project's folder."""
    return files.locate(schema, files.raw(raw_folder))


def read_log(
    schema: Schema,
    raw_files: dict[str, Path],
    sample_share: float | None,
    parsed_files: Path,
    window: Mapping[str, Any] | None = None,
) -> tuple[ir.Table, ir.Table, ir.Table, ir.Table, dict[str, Any]]:
    """Impressions, users and items in the types of the schema; with ``sample_share`` those of a share of the users.

    Then the lines of the raw files that were set apart, and the report: what was read of each file, and how many
    impressions ``minimum`` left out. ``parsed_files`` keeps the parts of large files that are finished: a run that was
    stopped goes on there. Of the log only the days of ``window`` are read, see :class:`multidomain.window.Window`.

    Raises:
        ConfigurationError: a setting of ``window`` that is not allowed, or a log without times.
        DataError: the log has no row of those days, or of the last of them; or cannot be read.
    """
    days = Window.read(window)
    tables = sources.sample(schema, sources.read(schema, raw_files, parsed_files, days), sample_share)
    impressions, users, items = (tables[name] for name in TABLES)
    report: dict[str, Any] = {"files": tables["files"].to_pyarrow().to_pylist()}
    if days.until is not None:
        report["window"] = _of_days(schema, impressions, days)
    if schema.minimums:
        every, impressions = impressions, sources.enough(schema, impressions)
        report |= _left_out(schema, every, impressions)
    return impressions, users, items, tables["rejected"], report


def _of_days(schema: Schema, impressions: ir.Table, window: Window) -> dict[str, Any]:
    """Which days are read, and how many rows they have; nothing to learn or a day that never came ends the run."""
    column = schema.roles.timestamp
    assert column is not None  # sources.read has seen to it
    last = impressions.filter(impressions[column].date() == window.until)
    rows, newest = int(impressions.count().execute()), int(last.count().execute())
    if newest == 0:
        raise DataError(
            f"Data set '{schema.name}': no row of {window.until} (UTC, by '{column}') among {rows:,} up to then. "
            "Has the day's log not arrived yet? Run again when it has, or name another day (window.until)."
        )
    log.info("%s impressions up to %s, %s of them of that day", f"{rows:,}", window.until, f"{newest:,}")
    earliest = window.earliest.date().isoformat() if window.earliest else None
    return {"from": earliest, "until": str(window.until), "rows": rows, "rows_of_last_day": newest}


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
