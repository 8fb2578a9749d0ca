"""Bring a log's raw files into the raw folder."""

from __future__ import annotations

import logging

from ...schema import Schema
from ...sources import fetch, files
from ...sources.text import archives

log = logging.getLogger(__name__)


def fetch_files(schema: Schema, raw_folder: str) -> None:
    """Download what is missing and has an address; a relative ``raw_folder`` is meant from the project's folder.

    Of an object store, copy what is missing or has changed there.
    """
    if not schema.files:
        log.info("Data set '%s' is drawn: it has no files to fetch.", schema.name)
        return
    found = fetch.fetch(schema, files.raw(raw_folder))
    for path in sorted({archives.outermost(path) for path in found.values()}):
        log.info("%s: %s bytes", path, f"{path.stat().st_size:,}")
    log.info("All files are there. They are read by: kedro run --pipeline=prepare --params=dataset=%s", schema.name)
