"""Feast's DuckDB offline store with an as-of join.

Feast's own join pairs every entity row with every earlier feature row of its key and keeps the latest, so its cost is
the sum of squared rows per key. Here DuckDB's ``ASOF JOIN`` sorts both sides once. Only keys, times and row numbers go
through the join; the features themselves are gathered afterwards, from those Parquet row groups alone that were hit.

``offline_store: {type: multidomain.features.asof.AsofOfflineStore}`` in ``feature_store.yaml`` chooses this store.
Imported by Feast only: nothing else of the package loads it at start.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Self

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from feast.data_source import DataSource
from feast.errors import EntityTimestampInferenceException
from feast.feature_view import DUMMY_ENTITY_ID, FeatureView
from feast.infra.offline_stores.duckdb import (
    DuckDBOfflineStore,
    DuckDBOfflineStoreConfig,
    _write_data_source,
)
from feast.infra.offline_stores.offline_store import RetrievalJob, RetrievalMetadata
from feast.infra.registry.base_registry import BaseRegistry
from feast.on_demand_feature_view import OnDemandFeatureView
from feast.repo_config import RepoConfig
from feast.saved_dataset import SavedDatasetStorage
from pydantic import StrictInt, StrictStr

from .stored import Rows, column_types, connected, epoch, literal, quoted, source_rows

EVENT_TIMESTAMP = "event_timestamp"
ROW, AT = "__row", "__at"


class AsofOfflineStoreConfig(DuckDBOfflineStoreConfig):
    """``memory_limit`` bounds the join (not the result); beyond it DuckDB spills to a temporary folder."""

    type: StrictStr = "multidomain.features.asof.AsofOfflineStore"
    memory_limit: StrictStr = "2GB"
    threads: StrictInt | None = None


class AsofOfflineStore(DuckDBOfflineStore):
    """The stock store but for :meth:`get_historical_features`."""

    @staticmethod
    def get_historical_features(
        config: RepoConfig,
        feature_views: list[FeatureView],
        feature_refs: list[str],
        entity_df: pd.DataFrame | pa.Table | str,
        registry: BaseRegistry,
        project: str,
        full_feature_names: bool = False,
        filter_by_created_timestamp: bool = False,
    ) -> RetrievalJob:
        """Every entity row once and in its order, beside what each view knew of it at its time.

        A feature row counts when its time is at or before the entity row's and, with a ttl, no older than that. Of
        several with the same key and time the one created last counts, or without that column the last in the file.
        No such row: nulls. All columns of ``entity_df`` are carried along.

        Args:
            entity_df: a pandas frame or an Arrow table with the join keys and one timestamp, ``event_timestamp`` or
                the only column of a timestamp type. Naive times are UTC.
            filter_by_created_timestamp: leave out feature rows created after the entity row's time. This pairs rows
                key by key and is meant for short keys.

        Raises:
            ValueError: ``entity_df`` is neither, lacks a join key, or already has a column named like a feature.
            EntityTimestampInferenceException: it is not clear which column is the time.
        """
        if not isinstance(entity_df, pd.DataFrame | pa.Table):
            raise ValueError(
                f"entity_df must be a pandas DataFrame or a pyarrow Table, not {type(entity_df).__name__}."
            )
        entities = (
            pa.Table.from_pandas(entity_df, preserve_index=False) if isinstance(entity_df, pd.DataFrame) else entity_df
        )
        given = (config, feature_views, feature_refs, registry, project)
        return AsofRetrievalJob.of(entities, *given, full_feature_names, filter_by_created_timestamp)


class AsofRetrievalJob(RetrievalJob):
    """Runs the joins, and the on-demand views on top, when asked for the result."""

    @classmethod
    def of(
        cls,
        entities: pa.Table,
        config: RepoConfig,
        feature_views: Sequence[FeatureView],
        feature_refs: list[str],
        registry: BaseRegistry,
        project: str,
        full_feature_names: bool,
        by_created: bool,
    ) -> Self:
        """The job of :meth:`AsofOfflineStore.get_historical_features`, which says what is what and what is refused.

        Any other store hands on what Feast gave it, in Feast's order, but for the entity rows, which are a table here.
        """
        joins = [ViewJoin.of(view, feature_refs, full_feature_names) for view in feature_views]
        time = _time_column(entities)
        _check_columns(entities, joins)
        return cls(
            entities=entities,
            time=time,
            joins=joins,
            config=config,
            by_created=by_created,
            full_feature_names=full_feature_names,
            on_demand=OnDemandFeatureView.get_requested_odfvs(feature_refs, project, registry),
            feature_refs=feature_refs,
        )

    def __init__(
        self,
        *,
        entities: pa.Table,
        time: str,
        joins: Sequence[ViewJoin],
        config: RepoConfig,
        by_created: bool,
        full_feature_names: bool,
        on_demand: list[OnDemandFeatureView],
        feature_refs: list[str],
    ) -> None:
        super().__init__()
        self._entities, self._at, self._joins = entities, _microseconds(entities[time]), joins
        self._config, self._by_created = config, by_created
        self._full_feature_names, self._on_demand, self._feature_refs = full_feature_names, on_demand, feature_refs
        bounds = pc.min_max(self._at)
        self._metadata = RetrievalMetadata(
            features=feature_refs,
            keys=[name for name in entities.column_names if name != time],
            min_event_timestamp=_moment(bounds["min"]),
            max_event_timestamp=_moment(bounds["max"]),
        )

    def _to_arrow_internal(self, timeout: int | None = None) -> pa.Table:
        del timeout  # DuckDB has none
        result = self._joined()
        for view in self._on_demand:
            result = self._computed(view, result)
        return result

    def _joined(self) -> pa.Table:
        """The entity rows with the features of all views."""
        result = self._entities
        with connected(self._config) as con:
            for join in self._joins:
                source = source_rows(join.source, self._config)
                picked = join.pick(con, source, self._entities, self._at, self._by_created)
                features = source.gather(picked, [column for column, _ in join.features])
                for column, name in join.features:
                    result = result.append_column(name, features[column])
        return result

    def _computed(self, view: OnDemandFeatureView, table: pa.Table) -> pa.Table:
        """With the requested columns of an on-demand view, which is given its inputs alone.

        Feast itself would turn the whole table, lists and all, into Python objects for each view.
        """
        projections = view.source_feature_view_projections.values()
        inputs = {f"{name}{f.name}" for p in projections for name in ("", f"{p.name}__") for f in p.features}
        inputs |= set(view.get_request_data_schema())
        made = view.transform_arrow(
            table.select([name for name in table.column_names if name in inputs]), self._full_feature_names
        )
        called: str = view.projection.name_to_use()  # type: ignore[no-untyped-call]
        prefix = f"{called}__" if self._full_feature_names else ""
        asked = [ref.split(":", 1)[1] for ref in self._feature_refs if ref.split(":", 1)[0] == called]
        for name in asked:
            table = table.append_column(f"{prefix}{name}", made[f"{prefix}{name}"])
        return table

    def _to_df_internal(self, timeout: int | None = None) -> pd.DataFrame:
        return self._to_arrow_internal(timeout).to_pandas()

    def persist(self, storage: SavedDatasetStorage, allow_overwrite: bool = False, timeout: int | None = None) -> None:
        """Write the result where ``storage`` says."""
        import ibis

        table = ibis.memtable(self.to_arrow(timeout=timeout))
        repo = str(self._config.repo_path)
        _write_data_source(table, storage.to_data_source(), repo, "overwrite", allow_overwrite)

    @property
    def full_feature_names(self) -> bool:
        """Whether features are called ``<view>__<feature>``."""
        return self._full_feature_names

    @property
    def on_demand_feature_views(self) -> list[OnDemandFeatureView]:
        """What Feast is to compute from the joined columns: nothing, it is done."""
        return []

    @property
    def metadata(self) -> RetrievalMetadata:
        """What was asked for, and the times it was asked for."""
        return self._metadata


@dataclass(frozen=True, kw_only=True)
class ViewJoin:
    """One feature view against the entity rows, under the names its source file uses."""

    view: str
    source: DataSource
    keys: tuple[tuple[str, str], ...]  # source column, entity column
    time: str
    created: str | None
    ttl: int | None  # microseconds
    features: tuple[tuple[str, str], ...]  # source column, output column

    @classmethod
    def of(cls, view: FeatureView, feature_refs: Sequence[str], full_names: bool) -> ViewJoin:
        """The features of a view that are asked for."""
        source, projection = view.batch_source, view.projection
        if source is None:
            raise ValueError(f"Feature view '{view.name}' has no batch source and cannot be queried.")
        stored = {new: old for old, new in source.field_mapping.items()}
        name: str = projection.name_to_use()  # type: ignore[no-untyped-call]
        prefix, label = f"{name}:", projection.name_alias or view.name
        names = [ref.removeprefix(prefix) for ref in feature_refs if ref.startswith(prefix)]
        columns = [column.name for column in view.entity_columns if column.name != DUMMY_ENTITY_ID]
        created = source.created_timestamp_column
        return cls(
            view=label,
            source=source,
            keys=tuple((stored.get(name, name), projection.join_key_map.get(name, name)) for name in columns),
            time=stored.get(source.timestamp_field, source.timestamp_field),
            created=stored.get(created, created) if created else None,
            ttl=view.ttl // timedelta(microseconds=1) if view.ttl else None,
            features=tuple((stored.get(name, name), f"{label}__{name}" if full_names else name) for name in names),
        )

    def pick(
        self, con: duckdb.DuckDBPyConnection, source: Rows, entities: pa.Table, at: pa.ChunkedArray, by_created: bool
    ) -> np.ndarray:
        """For each entity row the number of the feature row that was known then, or -1. Shape (N,), int64."""
        picked = np.full(entities.num_rows, -1, dtype=np.int64)
        if not self.features or entities.num_rows == 0:
            return picked
        columns = {f"k{i}": entities[entity] for i, (_, entity) in enumerate(self.keys)}
        columns |= {AT: at, ROW: pa.array(np.arange(entities.num_rows))}
        con.register("entities", pa.table(columns))
        # An as-of join takes a null for the latest of times, and has found a missing key equal to another.
        there = " AND ".join(f"{name} IS NOT NULL" for name in columns)
        con.execute(f"CREATE OR REPLACE TEMPORARY VIEW asked AS SELECT * FROM entities WHERE {there}")
        source.register(con)
        query = self._all_pairs(con, source) if by_created and self.created else self._asof(con, source)
        found = con.execute(query).to_arrow_table()
        picked[found[ROW].to_numpy()] = found["picked"].to_numpy()
        return picked

    def _asof(self, con: duckdb.DuckDBPyConnection, source: Rows) -> str:
        keys = [f"k{i}" for i in range(len(self.keys))]
        latest = "max(number)"
        if self.created:  # a row without a creation time counts as created first
            latest = "arg_max(number, {'a': coalesce(created, -9223372036854775808), 'b': number})"
        known = (
            f"SELECT {', '.join([*keys, AT])}, {latest} AS number FROM ({self._known(con, source)}) "
            f"GROUP BY {', '.join([*keys, AT])}"
        )
        on = " AND ".join([*(f"asked.{key} = known.{key}" for key in keys), f"asked.{AT} >= known.{AT}"])
        fresh = f" WHERE asked.{AT} - known.{AT} <= {self.ttl}" if self.ttl else ""
        return f"SELECT asked.{ROW}, known.number AS picked FROM asked ASOF JOIN ({known}) known ON {on}{fresh}"

    def _all_pairs(self, con: duckdb.DuckDBPyConnection, source: Rows) -> str:
        on = [f"asked.k{i} = known.k{i}" for i in range(len(self.keys))]
        on += [f"asked.{AT} >= known.{AT}", f"asked.{AT} >= known.created"]
        on += [f"asked.{AT} - known.{AT} <= {self.ttl}"] if self.ttl else []
        latest = f"arg_max(number, {{'a': known.{AT}, 'b': created, 'c': number}})"
        return (
            f"SELECT asked.{ROW}, {latest} AS picked FROM asked JOIN ({self._known(con, source)}) known "
            f"ON {' AND '.join(on)} GROUP BY asked.{ROW}"
        )

    def _known(self, con: duckdb.DuckDBPyConnection, source: Rows) -> str:
        """Keys, time, creation time and number of the feature rows that may matter."""
        types, asked = column_types(con, source.relation), column_types(con, "asked")
        selected = [f"{quoted(column)} AS k{i}" for i, (column, _) in enumerate(self.keys)]
        selected += [f"{epoch(self.time, types)} AS {AT}", f"{source.number} AS number"]
        selected += [f"{epoch(self.created, types)} AS created"] if self.created else []
        where = [f"{quoted(name)} IS NOT NULL" for name in (self.time, *(column for column, _ in self.keys))]
        for i, (column, _) in enumerate(self.keys):
            if types[column] == asked[f"k{i}"] and types[column] in ("VARCHAR", "BIGINT", "INTEGER"):
                low, high = con.execute(f"SELECT min(k{i}), max(k{i}) FROM asked").fetchall()[0]
                if low is not None:  # as constants, so that DuckDB skips row groups of other keys
                    where.append(f"{quoted(column)} BETWEEN {literal(low)} AND {literal(high)}")
        return f"SELECT {', '.join(selected)} FROM {source.relation} WHERE {' AND '.join(where)}"


def _time_column(table: pa.Table) -> str:
    times: list[str]
    if EVENT_TIMESTAMP in table.column_names:
        return EVENT_TIMESTAMP
    times = [field.name for field in table.schema if pa.types.is_timestamp(field.type)]
    if len(times) != 1:
        raise EntityTimestampInferenceException(EVENT_TIMESTAMP)
    return times[0]


def _check_columns(entities: pa.Table, joins: Sequence[ViewJoin]) -> None:
    taken = set(entities.column_names)
    for join in joins:
        for _, column in join.keys:
            if column not in entities.column_names:
                raise ValueError(
                    f"entity_df has no column '{column}', a join key of feature view '{join.view}'. "
                    f"It has: {', '.join(entities.column_names)}."
                )
        for _, name in join.features:
            if name in taken:
                raise ValueError(
                    f"feature '{name}' of view '{join.view}' has the name of another column or feature. "
                    "Rename the column, or ask with full_feature_names=True."
                )
            taken.add(name)


def _microseconds(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Microseconds since 1970 UTC; finer times are cut, naive ones are UTC."""
    if not (pa.types.is_timestamp(column.type) or pa.types.is_date(column.type)):
        column = pa.chunked_array([pa.Array.from_pandas(pd.to_datetime(column.to_pandas(), utc=True))])
    if pa.types.is_date(column.type):
        column = column.cast(pa.timestamp("us"))
    return column.cast(pa.timestamp("us", column.type.tz), safe=False).cast(pa.int64())


def _moment(value: pa.Scalar) -> datetime | None:
    return value.cast(pa.timestamp("us", "UTC")).as_py() if value.is_valid else None
