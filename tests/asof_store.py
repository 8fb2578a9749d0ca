"""Registered Feast stores over Parquet files that a test rewrites, to hold point-in-time joins to plain SQL."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
from feast import Entity, FeatureStore, FeatureView, Field, RepoConfig, RequestSource, ValueType
from feast.data_source import DataSource
from feast.on_demand_feature_view import on_demand_feature_view
from feast.types import Array, Float64, Int64, String

BASE = 1_000_000_000_000_000  # microseconds
TTL = 3_000_000
FILE = pa.schema(
    [
        ("k", pa.int64()),
        ("name", pa.string()),
        ("at", pa.timestamp("us", "UTC")),
        ("made", pa.timestamp("us", "UTC")),
        ("raw", pa.int64()),
        ("words", pa.list_(pa.string())),
    ]
)
VIEWS = {  # keys, ttl, whether the creation time decides ties
    "plain": (["k"], None, False),
    "created": (["k"], None, True),
    "fresh": (["k"], TTL, True),
    "pair": (["k", "name"], None, True),
    "everywhere": ([], None, True),
}


def opened(folder: Path, *, offline: str, engine: str) -> FeatureStore:
    """An empty store in a folder: ours offline, by its class, what materializes, by its class, and ours online."""
    config = RepoConfig(
        project="held_to_sql",
        provider="local",
        registry={"path": str(folder / "registry.db"), "cache_ttl_seconds": 0},
        offline_store={"type": offline},
        batch_engine={"type": engine},
        online_store={
            "type": "multidomain.features.online.GuardedSqliteOnlineStore",
            "path": str(folder / "online.db"),
        },
        entity_key_serialization_version=3,
        repo_path=folder,
    )
    return FeatureStore(config=config)


class AsofStore(ABC):
    """The views of ``VIEWS`` over rows of ``FILE``, and ``scaled`` = value of ``plain`` times a factor asked with.

    A subclass says which stores (:meth:`opened`), how a source is declared and how the rows are written.
    """

    offline: str
    engine: str

    def __init__(self, folder: Path) -> None:
        self.path = folder / "features.parquet"
        self.write([(0, "a", 0, 0, 0, ["x"])])
        self.feast = opened(folder, offline=self.offline, engine=self.engine)
        entities = {
            "k": Entity(name="number", join_keys=["k"], value_type=ValueType.INT64),
            "name": Entity(name="text", join_keys=["name"], value_type=ValueType.STRING),
        }
        types = {"k": Int64, "name": String, "value": Int64, "words": Array(String)}
        self.views = {
            name: FeatureView(
                name=name,
                entities=[entities[key] for key in keys],
                schema=[Field(name=one, dtype=types[one]) for one in (*keys, "value", "words")],
                ttl=timedelta(microseconds=ttl or 0),
                source=self.source(
                    name=f"{name}_source",
                    path=str(self.path),
                    timestamp_field="at",
                    created_timestamp_column="made" if created else "",
                    field_mapping={"raw": "value"},
                ),
            )
            for name, (keys, ttl, created) in VIEWS.items()
        }
        request = RequestSource(name="asked", schema=[Field(name="factor", dtype=Int64)])

        @on_demand_feature_view(
            sources=[self.views["plain"], request], schema=[Field(name="scaled", dtype=Float64)], mode="pandas"
        )
        def scaled(inputs: pd.DataFrame) -> pd.DataFrame:
            return pd.DataFrame({"scaled": inputs["value"].astype("float64") * inputs["factor"]})

        self.feast.apply([*entities.values(), *self.views.values(), scaled])

    @abstractmethod
    def source(self, **options: Any) -> DataSource:
        """The source of a view."""

    @abstractmethod
    def write(self, rows: Sequence[tuple[Any, ...]]) -> None:
        """Replace the rows by others: key, name, microseconds after BASE, the same or None, value, words."""

    def ask(self, entities: Any, features: Any, **options: Any) -> Any:
        return self.feast.get_historical_features(features=features, entity_df=entities, **options)


def as_table(rows: Sequence[tuple[Any, ...]]) -> pa.Table:
    """The rows of :meth:`AsofStore.write` as a table of ``FILE``."""
    stamped = [(k, n, BASE + t, None if m is None else BASE + m, raw, words) for k, n, t, m, raw, words in rows]
    columns = list(zip(*stamped, strict=True)) if stamped else [[]] * len(FILE)
    return pa.table([pa.array(list(c), type=f.type) for c, f in zip(columns, FILE, strict=True)], schema=FILE)


def entities(rows: Sequence[tuple[Any, ...]]) -> pa.Table:
    """Rows of (k, name, microseconds after BASE), with their number as an extra column."""
    k, name, at = zip(*rows, strict=True)
    return pa.table(
        {
            "impression_id": pa.array(range(100, 100 + len(rows)), pa.int64()),
            "k": pa.array(k, pa.int64()),
            "name": pa.array(name, pa.string()),
            "event_timestamp": pa.array([None if t is None else BASE + t for t in at], pa.timestamp("us", "UTC")),
        }
    )
