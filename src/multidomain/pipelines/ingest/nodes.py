"""Find a log's raw files and read them into impressions, users and items."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from ... import sources
from ...schema import Schema, project_root
from ...sources import files

if TYPE_CHECKING:
    import ibis.expr.types as ir

log = logging.getLogger(__name__)


def locate_files(schema: Schema, raw_folder: str) -> dict[str, Path]:
    """The raw files by name, each whole; a relative ``raw_folder`` is meant from the project's folder."""
    return files.locate(schema, project_root() / raw_folder)


def read_log(
    schema: Schema, raw_files: dict[str, Path], sample_share: float | None
) -> tuple[ir.Table, ir.Table, ir.Table]:
    """Impressions, users and items in the types of the schema; with ``sample_share`` those of a share of the users."""
    tables = sources.sample(schema, sources.read(schema, raw_files), sample_share)
    return tables["impressions"], tables["users"], tables["items"]
