"""Find a log's raw files and read them into impressions, users and items."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from ... import sources
from ...layout import TABLES
from ...schema import Schema, project_root
from ...sources import files

if TYPE_CHECKING:
    import ibis.expr.types as ir

log = logging.getLogger(__name__)


def locate_files(schema: Schema, raw_folder: str) -> dict[str, Path]:
    """The raw files by name, each whole; a relative ``raw_folder`` is meant from the project's folder."""
    return files.locate(schema, project_root() / raw_folder)


def read_log(
    schema: Schema, raw_files: dict[str, Path], sample_share: float | None, parsed_files: Path
) -> tuple[ir.Table, ir.Table, ir.Table, ir.Table, ir.Table]:
    """Impressions, users and items in the types of the schema; with ``sample_share`` those of a share of the users.

    Then the lines of the raw files that were set apart, and what was read of each file. ``parsed_files`` keeps the
    parts of large files that are finished: a run that was stopped goes on there.
    """
    tables = sources.sample(schema, sources.read(schema, raw_files, parsed_files), sample_share)
    impressions, users, items = (tables[name] for name in TABLES)
    return impressions, users, items, tables["rejected"], tables["files"]
