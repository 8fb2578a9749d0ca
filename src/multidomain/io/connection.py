"""The table engines of a process, each one Ibis backend: DuckDB embedded; in an environment that says so Spark.

Nodes are Ibis expressions and know neither. What differs between the two engines is in
:class:`multidomain.io.spark.SparkTables` and nowhere else.

What is read where: raw files are read on the driver, by DuckDB, in every environment (archives, text and drawn logs
come from one process anyway, and the rows of a file are numbered in its order). Tables from ``ingested_…`` to the view
tables belong to :func:`connection`. What training reads in order, the training frame and what follows it, is DuckDB's
again.
"""

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
    import ibis.expr.types as ir
    from ibis.backends.duckdb import Backend
    from ibis.backends.sql import SQLBackend as Engine
    from pyspark.sql import SparkSession

    from .spark_options import SparkOptions


MEMORY_LIMIT = "2GB"


_spark: SparkOptions | None = None


def use_spark(options: SparkOptions | None) -> None:
    """From now on tables are Spark's, whose session starts when first needed; None: DuckDB's, as at the beginning."""
    global _spark
    _spark = options


def distributed() -> bool:
    """Whether tables are Spark's."""
    return _spark is not None


def connection() -> Engine:
    """The engine of the tables, one for all nodes of this process, so that tables of two nodes can be joined."""
    if _spark is None:
        return embedded()
    from .spark import connect

    return connect(_spark)


def spark_session(settings: str) -> SparkSession:
    """The Spark of this run; where no run has chosen one, of Feast's own commands say, the one that a file describes.

    Args:
        settings: a ``spark.yml``, from the project's folder.
    """
    from .. import schema
    from .spark import session
    from .spark_options import read

    return session(_spark or read(schema.project_root() / settings))


def engine_of(expression: ir.Table) -> Engine:
    """The engine that holds the tables of an expression; DuckDB where it is made of values alone."""
    backends, _ = expression._find_backends()
    return backends[0] if backends else embedded()


@functools.cache
def embedded() -> Backend:
    """The DuckDB of this process.

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
