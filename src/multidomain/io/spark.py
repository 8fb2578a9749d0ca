"""Ibis over Spark, made to give what Ibis over DuckDB gives.

Everything in which the two engines differ, as far as the nodes use them, is here:

=========================  ==========================================  ==============================================
what                       Ibis on Spark by itself                     here
=========================  ==========================================  ==============================================
results, ``to_pyarrow``    by way of pandas: whole numbers beside      Arrow throughout, in the types of the
                           nulls become floats, lists objects          expression
``to_pyarrow_batches``     collects the whole table on the driver      written in parts to ``scratch``, then read part
                                                                       by part, in order
types                      whole numbers as narrow as Spark has them   those of the expression
times                      with and without a zone are one type        two, as in DuckDB
tables in memory           by way of pandas                            Arrow
``create_table(temp)``     refused                                     held by the executors until the name is used
                                                                       again
``to_parquet``             a folder of parts, snappy                   the same, zstd; row groups of so many rows
``isinf``                  false of everything                         true of both infinities
``collect(order_by)``      refused                                     collected with its keys and sorted by them,
                                                                       where all are ascending
``limit(n, offset)``       rows numbered without an order, and the     ``OFFSET``
                           number left among the columns
a struct as JSON           without its nulls, times with a T           as DuckDB writes it
a path                     of ``fs.defaultFS``                         of this machine unless it says otherwise
=========================  ==========================================  ==============================================

``order_by`` puts nulls last in both, division of whole numbers gives a float in both, and ``row_number``, ``rank`` and
``collect`` over a total order are equal: Ibis sees to that. A sum of floats is not the same in its last bits on two
engines, nor on one engine twice: nodes sum whole numbers, and divide once. ``hash()`` is another function on each:
what must be the same everywhere is drawn by :func:`multidomain.draw.digest`. What stays different is the text of a
float below 0.001 or from 10,000,000 up (``1.0E7``): no table but the quarantine holds one, ids and domains being text
before Spark sees them unless a domain is made of a column of floats.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import logging
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ibis
import ibis.expr.datatypes as dt
import ibis.expr.types as ir
import sqlglot as sg
import sqlglot.expressions as sge
from ibis.backends.pyspark import Backend
from ibis.backends.pyspark.datatypes import PySparkSchema
from ibis.backends.sql.compilers.base import NULL, SQLGlotCompiler
from ibis.backends.sql.compilers.pyspark import PySparkCompiler
from ibis.formats.pandas import PandasData

from ..errors import ConfigurationError, DataError
from .parts import part_batches
from .spark_options import SparkOptions

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa
    from pyspark.sql import DataFrame, SparkSession
    from pyspark.sql.types import StructType

SCRATCH = "spark.multidomain.scratch"


@functools.cache
def connect(options: SparkOptions) -> SparkTables:
    """The one backend of this process over :func:`session`."""
    backend = SparkTables()
    backend.register_options()
    backend.do_connect(session(options))
    return backend


@functools.cache
def session(options: SparkOptions) -> SparkSession:
    """Start Spark, or reach the cluster; ended when the process ends.

    Raises:
        ConfigurationError: PySpark or Java is not there, or the master does not answer.
    """
    try:
        from pyspark.sql import SparkSession
    except ImportError as error:
        raise ConfigurationError("Tables on Spark need PySpark: pip install 'multidomain[cluster]'.") from error
    if shutil.which("java") is None and "JAVA_HOME" not in os.environ:
        raise ConfigurationError("Spark needs Java 17 or newer: install it, or set JAVA_HOME.")
    for name in ("SQLQueryContextLogger", "DataFrameQueryContextLogger"):  # a page of JSON beside every error
        logging.getLogger(name).setLevel(logging.CRITICAL)
    os.environ["PYSPARK_PYTHON"] = options.interpreter
    builder = SparkSession.builder.config(SCRATCH, options.scratch or tempfile.gettempdir())
    for name, value in options.settings().items():
        builder = builder.config(name, value)
    place = Path(tempfile.mkdtemp(prefix="multidomain-spark-"))
    atexit.register(shutil.rmtree, place, ignore_errors=True)
    builder = builder.config("spark.sql.warehouse.dir", str(place / "warehouse"))
    try:
        started = builder.getOrCreate()
    except Exception as error:  # whatever Java said
        cause = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise ConfigurationError(f"Spark cannot be started with master {options.master}: {cause.strip()}") from error
    atexit.register(started.stop)
    return started


class _Compiler(PySparkCompiler):  # type: ignore[misc]
    """The rows of the table above that are about expressions."""

    rewrites = SQLGlotCompiler.rewrites  # without Ibis's own form of an offset: Spark has one since 3.4

    def visit_IsInf(self, op: Any, *, arg: Any) -> Any:
        if not op.arg.dtype.is_floating():
            return sge.false()
        return sg.or_(sge.EQ(this=arg, expression=self.POS_INF), sge.EQ(this=arg, expression=self.NEG_INF))

    def visit_Cast(self, op: Any, *, arg: Any, to: Any) -> Any:
        if not (to.is_json() and op.arg.dtype.is_struct()):
            return super().visit_Cast(op, arg=arg, to=to)
        pairs: list[Any] = []
        for name, kind in op.arg.dtype.items():
            value = sge.Dot(this=arg, expression=sg.to_identifier(name, quoted=self.quoted))
            pairs += [sge.convert(name), self.cast(value, dt.string) if kind.is_timestamp() else value]
        options = sge.Anonymous(this="map", expressions=[sge.convert("ignoreNullFields"), sge.convert("false")])
        return self.f.to_json(self.f.named_struct(*pairs), options)

    def visit_ArrayCollect(self, op: Any, *, arg: Any, where: Any, order_by: Any, **rest: Any) -> Any:
        if not order_by or any(rest.values()) or any(key.descending or key.nulls_first for key in op.order_by):
            return super().visit_ArrayCollect(op, arg=arg, where=where, order_by=order_by, **rest)
        named = [sge.convert("value"), arg]
        for number, key in reversed(list(enumerate(order_by))):  # structs are compared field by field, nulls first
            named = [f"none_{number}", key.this.is_(NULL), f"key_{number}", key.this, *named]
        kept = sg.and_(arg.is_(sg.not_(NULL)), *([where] if where is not None else []))
        found = self.f.collect_list(self.if_(kept, self.f.named_struct(*named), NULL))
        one = sg.to_identifier("one")
        value = sge.Dot(this=one, expression=sg.to_identifier("value"))
        return self.f.transform(self.f.anon.array_sort(found), sge.Lambda(this=value, expressions=[one]))


class SparkTables(Backend):  # type: ignore[misc]  # Ibis is untyped
    """See the table above."""

    compiler = _Compiler()

    def do_connect(self, session: SparkSession, **_: Any) -> None:
        """Over a session that is there."""
        super().do_connect(session)
        self._held: dict[str, DataFrame] = {}

    def frame(self, expr: ir.Expr, *, params: Mapping[Any, Any] | None = None, limit: Any = None) -> DataFrame:
        """An expression as Spark's own lazy table."""
        from pyspark.sql.types import NumericType

        table = expr.as_table()
        self._run_pre_execute_hooks(table)
        made: DataFrame = self._session.sql(self.compile(table, params=params, limit=limit))
        narrow = {
            field.name: field.dataType
            for field in _spark_schema(table.schema())
            if isinstance(field.dataType, NumericType) and made.schema[field.name].dataType != field.dataType
        }
        return made.withColumns({name: made[name].cast(kind) for name, kind in narrow.items()}) if narrow else made

    def to_pyarrow(self, expr: ir.Expr, /, *, params: Any = None, limit: Any = None, **_: Any) -> Any:
        """The result, whole, in the expression's types."""
        with told():
            found = self.frame(expr, params=params, limit=limit).toArrow()
        return expr.__pyarrow_result__(_typed(found, expr.as_table().schema().to_pyarrow()))

    def execute(self, expr: ir.Expr, /, *, params: Any = None, limit: Any = None, **_: Any) -> Any:
        """The result as pandas has it."""
        schema = expr.as_table().schema()
        with told():
            found = self.frame(expr, params=params, limit=limit).toArrow()
        frame: pd.DataFrame = _typed(found, schema.to_pyarrow()).to_pandas()
        return expr.__pandas_result__(PandasData.convert_table(frame, schema))

    def to_pyarrow_batches(
        self, expr: ir.Expr, /, *, params: Any = None, limit: Any = None, chunk_size: int = 1_000_000, **_: Any
    ) -> pa.ipc.RecordBatchReader:
        """The result in order, at most ``chunk_size`` rows at a time."""
        import pyarrow as pa

        schema = expr.as_table().schema().to_pyarrow()
        return pa.RecordBatchReader.from_batches(schema, self._batches(expr, schema, params, limit, chunk_size))

    def _batches(
        self, expr: ir.Expr, schema: pa.Schema, params: Any, limit: Any, rows: int
    ) -> Iterator[pa.RecordBatch]:
        import pyarrow as pa

        for batch in batches(self.frame(expr, params=params, limit=limit), rows):
            yield from _typed(pa.Table.from_batches([batch]), schema).to_batches(max_chunksize=rows)

    def to_parquet(
        self, expr: ir.Table, /, path: str | Path, *, params: Any = None, limit: Any = None, **options: Any
    ) -> None:
        """Write a folder of parts, whose names are in the order of the rows.

        Args:
            expr: a table.
            path: the folder.
            params, limit: as Ibis has them.
            options: ``compression``, and ``row_group_size`` in rows.
        """
        with told():
            writer = self.frame(expr, params=params, limit=limit).write
        writer = writer.option("compression", options.pop("compression", "zstd"))
        if rows := options.pop("row_group_size", None):
            writer = writer.option("parquet.block.row.count.limit", str(rows))
        if options:
            raise TypeError(f"unknown options: {', '.join(options)}")
        with told():
            writer.parquet(address(path))

    def read_parquet(self, path: str | Path, /, *, table_name: str | None = None, **options: Any) -> ir.Table:
        """A file, a folder of parts or a pattern as a lazy table."""
        return super().read_parquet(address(path), table_name=table_name, **options)

    def create_table(self, name: str, /, obj: Any = None, *, temp: bool | None = None, **options: Any) -> ir.Table:
        """A temporary table is computed once, and kept by the executors until its name is used again."""
        if not temp:
            return super().create_table(name, obj, temp=temp, **options)
        with told():
            made = self.frame(obj if isinstance(obj, ir.Expr) else ibis.memtable(obj)).persist()
            made.count()
        if name in self._held:
            self._held.pop(name).unpersist()
        self._held[name] = made
        made.createOrReplaceTempView(name)
        return self.table(name)

    def get_schema(self, table_name: str, **where: Any) -> Any:
        """With the zone of times that have one."""
        schema = super().get_schema(table_name, **where)
        kinds = {field.name: field.dataType.typeName() for field in self._session.table(table_name).schema}
        times = {"timestamp": dt.Timestamp("UTC", 6), "timestamp_ntz": dt.Timestamp(scale=6)}
        return ibis.schema({name: times.get(kinds[name], kind) for name, kind in schema.items()})

    def _register_in_memory_table(self, op: Any) -> None:
        table = op.data.to_pyarrow(op.schema)
        made = self._session.createDataFrame(table, schema=_spark_schema(op.schema))
        made.createOrReplaceTempView(op.name)


@contextlib.contextmanager
def told() -> Iterator[None]:
    """What Spark reports on many pages, in one message.

    Raises:
        DataError: a worker, the cluster or a query failed.
    """
    from py4j.protocol import Py4JError, Py4JNetworkError
    from pyspark.errors import PySparkException

    try:
        yield
    except (PySparkException, Py4JError, Py4JNetworkError, ConnectionError) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        named = [line for line in lines if line.startswith(("[", "Caused by", "org.apache.spark", ": "))]
        cause = (named or lines or [type(error).__name__])[0].removeprefix(": ")
        raise DataError(
            f"Spark could not finish: {cause[:500]}\nNothing of this table was kept. When the cluster is well, run the "
            "same command with --only-missing-outputs: it goes on with what is missing."
        ) from error


def batches(frame: DataFrame, rows: int) -> Iterator[pa.RecordBatch]:
    """The rows of a Spark table in order, at most so many at a time, by way of Parquet in the options' ``scratch``."""
    folder = Path(str(frame.sparkSession.conf.get(SCRATCH)))
    folder.mkdir(parents=True, exist_ok=True)
    place = folder / f"multidomain-{os.getpid()}-{uuid.uuid4().hex[:8]}.parquet"
    try:
        with told():
            frame.write.parquet(address(place))
        yield from part_batches(place, rows)
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _spark_schema(schema: Any) -> StructType:
    """Ibis itself gives every time the zone of the session."""
    from pyspark.sql.types import StructField, StructType, TimestampNTZType

    naive = {name for name, kind in schema.items() if kind.is_timestamp() and kind.timezone is None}
    return StructType(
        [
            StructField(field.name, TimestampNTZType() if field.name in naive else field.dataType)
            for field in PySparkSchema.from_ibis(schema)
        ]
    )


def _typed(found: pa.Table, schema: pa.Schema) -> pa.Table:
    """Spark's Arrow types are wider, or have other names within lists."""
    return found.rename_columns(schema.names).cast(schema)


def address(path: str | Path) -> str:
    """As Spark wants it: a path without a scheme is one of this machine."""
    text = os.fspath(path)
    return text if "://" in text else f"file://{os.path.abspath(text)}"
