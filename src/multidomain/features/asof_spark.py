"""Feast's Spark offline store with an as-of join, and what materializes from Spark.

Feast's own join on Spark pairs every entity row with every earlier feature row of its key, too, and keeps the latest:
its cost is the sum of squared rows per key (``benchmarks/results/asof_spark.md``). Here entity rows and feature rows
are put one below the other, divided by key and sorted by time once; the last feature row above an entity row is the one
that was known then. Views with the same keys are joined in one go. A key's rows are sorted by one executor, so a view
with few keys uses few cores.

``offline_store: {type: multidomain.features.asof_spark.SparkAsofOfflineStore}`` in ``feature_store.yaml`` chooses this
store, ``batch_engine: {type: multidomain.features.asof_spark.SparkEngine}`` what loads the online store.
Imported by Feast only: nothing else of the package loads it at start.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from feast.data_source import DataSource
from feast.feature_view import FeatureView
from feast.infra.common.materialization_job import MaterializationTask
from feast.infra.offline_stores.contrib.spark_offline_store.spark import (
    SparkOfflineStore,
    SparkOfflineStoreConfig,
)
from feast.infra.offline_stores.contrib.spark_offline_store.spark_source import SparkSource
from feast.infra.offline_stores.offline_store import RetrievalJob
from feast.infra.registry.base_registry import BaseRegistry
from feast.repo_config import RepoConfig
from feast.saved_dataset import SavedDatasetStorage
from pydantic import StrictStr
from pyspark.sql import Column, DataFrame, SparkSession, Window
from pyspark.sql import functions as F
from pyspark.sql import types as T

from ..io.connection import spark_session
from ..io.spark import address, batches, told
from ..progress import progress
from .asof import AT, ROW, AsofRetrievalJob, ViewJoin
from .engine import ArrowEngine, ArrowEngineConfig, stored_names, times_of, view_source, written
from .times import microseconds

PLACE = ("__file", "__row_of_file")  # where a feature row stands: of equal times the last counts
PIECE = 10_000  # rows written online at a time


class SparkAsofOfflineStoreConfig(SparkOfflineStoreConfig):
    """``settings`` names the file that says how Spark is reached where no run of the project has said it already."""

    type: StrictStr = "multidomain.features.asof_spark.SparkAsofOfflineStore"
    settings: StrictStr = "conf/cluster/spark.yml"


class SparkAsofOfflineStore(SparkOfflineStore):
    """The stock store but for :meth:`get_historical_features`."""

    @staticmethod
    def get_historical_features(
        config: RepoConfig,
        feature_views: list[FeatureView],
        feature_refs: list[str],
        entity_df: pd.DataFrame | pa.Table | DataFrame | str | None,
        registry: BaseRegistry,
        project: str,
        full_feature_names: bool = False,
        filter_by_created_timestamp: bool = False,
        **_: Any,
    ) -> RetrievalJob:
        """What :meth:`multidomain.features.asof.AsofOfflineStore.get_historical_features` gives, joined by Spark.

        Args:
            entity_df: a pandas frame, an Arrow table, a Spark DataFrame or a query of Spark SQL.

        Raises:
            ValueError: ``entity_df`` is none of these, lacks a join key, or already has a column named like a feature.
            EntityTimestampInferenceException: it is not clear which column is the time.
        """
        given = (config, feature_views, feature_refs, registry, project)
        return SparkAsofJob.of(_entities(entity_df, config), *given, full_feature_names, filter_by_created_timestamp)


class SparkAsofJob(AsofRetrievalJob):
    """Keys, times and row numbers of the entity rows go to Spark; what comes back is put beside them in their order."""

    def _joined(self) -> pa.Table:
        session, result = _session(self._config), self._entities
        groups: dict[tuple[str, ...], list[ViewJoin]] = {}
        for join in self._joins:
            alone = (join.view,) if self._by_created and join.created else ()
            groups.setdefault((*(entity for _, entity in join.keys), *alone), []).append(join)
        found: dict[str, pa.ChunkedArray] = {}
        for joins in groups.values():
            with told():
                known = self._of_group(session, joins)
            place = np.full(result.num_rows, -1, dtype=np.int64)
            place[known[ROW].to_numpy()] = np.arange(known.num_rows)
            rows = known.take(pa.array(place, mask=place < 0))
            found |= {name: rows[name] for join in joins for _, name in join.features}
        for join in self._joins:
            for _, name in join.features:
                result = result.append_column(name, found[name])
        return result

    def _of_group(self, session: SparkSession, joins: Sequence[ViewJoin]) -> pa.Table:
        """Row number and features of every entity row that has its keys and a time, of views with the same keys."""
        entities = [entity for _, entity in joins[0].keys]
        columns = {f"k{i}": self._entities[entity] for i, entity in enumerate(entities)}
        asked = pa.table({**columns, AT: self._at, ROW: pa.array(np.arange(self._entities.num_rows))})
        frame = session.createDataFrame(asked).dropna()
        if self._by_created and joins[0].created:
            return _all_pairs(session, frame, joins[0]).toArrow()
        return _asof(session, frame, joins).toArrow()

    def persist(self, storage: SavedDatasetStorage, allow_overwrite: bool = False, timeout: int | None = None) -> None:
        """Write the result, as Parquet, where ``storage`` says."""
        del timeout  # Spark has none
        source: Any = storage.to_data_source()
        writer = _session(self._config).createDataFrame(self.to_arrow()).write
        mode = "overwrite" if allow_overwrite else "errorifexists"
        if source.path:
            writer.mode(mode).parquet(address(source.path))
        else:
            writer.mode(mode).saveAsTable(source.table)


def _asof(session: SparkSession, asked: DataFrame, joins: Sequence[ViewJoin]) -> DataFrame:
    keys = [f"k{i}" for i in range(len(joins[0].keys))]
    sources = [_known(session, join) for join in joins]
    types = {name: _wider(asked.schema[name].dataType, [one.schema[name].dataType for one in sources]) for name in keys}
    kinds = [one.schema["known"].dataType for one in sources]

    def stacked(frame: DataFrame, number: int | None) -> DataFrame:
        known = [
            (F.col("known") if i == number else F.lit(None)).cast(kind).alias(f"known{i}")
            for i, kind in enumerate(kinds)
        ]
        row = F.col(ROW) if number is None else F.lit(None).cast("long").alias(ROW)
        order = [F.lit(None).cast(kind).alias(name) for name, kind in _ORDER.items()] if number is None else [*_ORDER]
        return frame.select(*(F.col(name).cast(types[name]) for name in keys), AT, row, *order, *known)

    rows = stacked(asked, None)
    for number, source in enumerate(sources):
        rows = rows.unionByName(stacked(source, number))
    last = F.col(ROW).isNotNull()  # of the rows of one instant what is known comes first
    order = [F.col(AT), last, *(F.col(name).asc_nulls_first() for name in _ORDER)]
    window = Window.partitionBy(*keys).orderBy(*order).rowsBetween(Window.unboundedPreceding, Window.currentRow)
    seen = [F.last(f"known{i}", ignorenulls=True).over(window).alias(f"known{i}") for i in range(len(joins))]
    rows = rows.select(ROW, AT, *seen).where(F.col(ROW).isNotNull())
    return rows.select(ROW, *(column for i, join in enumerate(joins) for column in _features(join, f"known{i}")))


def _all_pairs(session: SparkSession, asked: DataFrame, join: ViewJoin) -> DataFrame:
    """With every earlier row of the key that had been created by then: for short keys."""
    known = _known(session, join).withColumnRenamed(AT, "__then")
    left = asked.withColumnsRenamed({f"k{i}": f"asked{i}" for i in range(len(join.keys))})
    on = [F.col(f"asked{i}") == F.col(f"k{i}") for i in range(len(join.keys))]
    on += [F.col("__then") <= F.col(AT), F.col("__created") <= F.col(AT)]
    latest = F.max_by("known", F.struct("__then", *_ORDER)).alias("known0")
    pairs = left.join(known, on).groupBy(ROW, AT).agg(latest)
    return pairs.select(ROW, *_features(join, "known0"))


_ORDER = {"__created": "long", PLACE[0]: "string", PLACE[1]: "long"}


def _known(session: SparkSession, join: ViewJoin) -> DataFrame:
    """The rows of a view's source that have a key and a time: keys, time, what orders equal times, and the features."""
    rows = read_source(session, join.source)
    keys = [F.col(_quoted(column)).alias(f"k{i}") for i, (column, _) in enumerate(join.keys)]
    created = _micros(rows, join.created) if join.created else F.lit(None).cast("long")
    features = [F.col(_quoted(column)).alias(name) for column, name in join.features]
    payload = F.struct(_micros(rows, join.time).alias(AT), *features).alias("known")
    found = rows.select(*keys, _micros(rows, join.time).alias(AT), created.alias("__created"), *PLACE, payload)
    return found.dropna(subset=[AT, *(f"k{i}" for i in range(len(join.keys)))])


def _features(join: ViewJoin, known: str) -> list[Column]:
    """The features of the row that was found; null beyond the view's ttl."""
    fresh = F.col(AT) - F.col(f"{known}.{AT}") <= join.ttl if join.ttl else F.lit(True)
    return [F.when(fresh, F.col(f"{known}.{_quoted(name)}")).alias(name) for _, name in join.features]


def read_source(session: SparkSession, source: DataSource) -> DataFrame:
    """The rows behind a view, and where each stands in its file (the same for all where that is not known)."""
    if not isinstance(source, SparkSource):
        raise ValueError(f"source '{source.name}' is a {type(source).__name__}; this store reads SparkSources.")
    if source.path and source.file_format == "parquet":
        rows = session.read.parquet(address(source.path))
        return rows.select(
            "*", F.col("_metadata.file_path").alias(PLACE[0]), F.col("_metadata.row_index").alias(PLACE[1])
        )
    rows = session.sql(f"SELECT * FROM {source.get_table_query_string()}")
    return rows.withColumns({PLACE[0]: F.lit(""), PLACE[1]: F.lit(0).cast("long")})


class SparkEngineConfig(ArrowEngineConfig):
    """It has no options."""

    type: StrictStr = "multidomain.features.asof_spark.SparkEngine"


class SparkEngine(ArrowEngine):
    """The latest row of every key is found by Spark, and written online from the driver, a piece at a time."""

    def _write(self, task: MaterializationTask) -> None:
        view, config = task.feature_view, self.repo_config
        rows = latest(view, _session(config), task.start_time, task.end_time)
        with progress(total=0, what=f"load {view.name}") as bar:
            for batch in batches(rows, PIECE):
                piece = pa.Table.from_batches([batch])
                piece = piece.cast(_with_plain_lists(piece.schema))
                self.online_store.online_write_batch(config, view, written(view, piece), bar.update)


def latest(view: FeatureView, session: SparkSession, start: datetime, end: datetime) -> DataFrame:
    """The latest rows of all keys between two times, both included, under the view's names; ties as in the join."""
    source = view_source(view)
    names = [*view.join_keys, *(field.name for field in view.features), *times_of(source)]
    stored = stored_names(view, names)
    rows = read_source(session, source)
    time, *created = stored_names(view, times_of(source))
    creation = F.coalesce(_micros(rows, created[0]), F.lit(-(2**63))) if created else F.lit(0)
    rows = rows.dropna(subset=stored_names(view, view.join_keys))
    rows = rows.where(_micros(rows, time).between(microseconds(start), microseconds(end)))
    order = F.struct(_micros(rows, time).alias("a"), creation.alias("b"), *PLACE)
    row = F.struct(*(F.col(_quoted(old)).alias(new) for old, new in zip(stored, names, strict=True)))
    keys = [F.col(_quoted(key)) for key in stored_names(view, view.join_keys)]
    return rows.groupBy(*keys).agg(F.max_by(row, order).alias("latest")).select("latest.*")


def _entities(given: Any, config: RepoConfig) -> pa.Table:
    if isinstance(given, pd.DataFrame):
        return pa.Table.from_pandas(given, preserve_index=False)
    if isinstance(given, str):
        given = _session(config).sql(given)
    if hasattr(given, "toArrow"):
        return given.toArrow()
    if isinstance(given, pa.Table):
        return given
    raise ValueError(
        "entity_df must be a pandas DataFrame, a pyarrow Table, a Spark DataFrame or a query, not "
        f"{type(given).__name__}."
    )


def _session(config: RepoConfig) -> SparkSession:
    return spark_session(config.offline_store.settings)


def _micros(rows: DataFrame, column: str | None) -> Column:
    """Microseconds since 1970 UTC; a time without a zone is UTC."""
    name = _quoted(str(column))
    whole = isinstance(rows.schema[str(column)].dataType, T.TimestampType)
    return F.unix_micros(F.col(name) if whole else F.col(name).cast("timestamp"))


def _wider(asked: T.DataType, known: Sequence[T.DataType]) -> T.DataType:
    """Keys of one type are compared as they are, others as whole numbers or as text."""
    kinds = [asked, *known]
    if all(kind == asked for kind in kinds):
        return asked
    return T.LongType() if all(isinstance(kind, T.IntegralType) for kind in kinds) else T.StringType()


def _with_plain_lists(schema: pa.Schema) -> pa.Schema:
    def plain(kind: pa.DataType) -> pa.DataType:
        return pa.list_(pa.field("element", kind.value_type)) if pa.types.is_list(kind) else kind

    return pa.schema([pa.field(field.name, plain(field.type)) for field in schema])


def _quoted(name: str) -> str:
    return "`" + name.replace("`", "``") + "`"
