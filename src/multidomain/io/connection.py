"""The one table engine of a process: Ibis over DuckDB, in UTC, with bounded memory."""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from .atomic import working_folder

if TYPE_CHECKING:
    import duckdb
    from ibis.backends.duckdb import Backend

MEMORY_LIMIT = "2GB"


@functools.cache
def connection() -> Backend:
    """The DuckDB backend all nodes of this process share, so that tables of two nodes can be joined.

    ``$MULTIDOMAIN_MEMORY`` bounds its memory (default 2GB); beyond it DuckDB spills to a temporary folder.
    """
    import ibis

    until_exit = contextlib.ExitStack()
    atexit.register(until_exit.close)
    spill = until_exit.enter_context(working_folder(Path(tempfile.gettempdir()) / "multidomain-duckdb"))
    backend = ibis.duckdb.connect(
        temp_directory=spill,
        memory_limit=os.environ.get("MULTIDOMAIN_MEMORY", MEMORY_LIMIT),
    )
    backend.raw_sql("SET TimeZone = 'UTC'")
    quiet(backend.con)
    backend.raw_sql("SET preserve_insertion_order = true")
    backend.raw_sql("SET enable_external_file_cache = false")  # a file rewritten in place would be read half old
    return backend


def quiet(engine: duckdb.DuckDBPyConnection) -> None:
    """No progress bars of DuckDB's own. In a notebook without ipywidgets it has none, and refuses the setting."""
    import duckdb

    with contextlib.suppress(duckdb.InvalidInputException):
        engine.execute("SET enable_progress_bar = false")
