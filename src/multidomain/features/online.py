"""Feast's SQLite online store, in which a late value never takes the place of a newer one.

The stock store keeps what was written last, whatever its time, and keeps times in whole seconds. Here a value is
replaced by one of the same time or a later one alone, and times are kept in microseconds. Readers are not held up while
somebody writes. :meth:`GuardedSqliteOnlineStore.read_rows` takes everything a request asks for at once.

``online_store: {type: multidomain.features.online.GuardedSqliteOnlineStore}`` in ``feature_store.yaml`` chooses this
store. Imported by Feast only: nothing else of the package loads it at start.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any

from feast.feature_view import FeatureView
from feast.infra.key_encoding_utils import serialize_entity_key
from feast.infra.online_stores.helpers import extract_text_and_num
from feast.infra.online_stores.sqlite import SqliteOnlineStore, SqliteOnlineStoreConfig, _table_id
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value
from feast.repo_config import RepoConfig
from pydantic import StrictStr

from .rows import Asked, entity_bytes, held
from .times import EPOCH, microseconds

WAIT = 30_000  # milliseconds for another writer to end
READ = 30_000  # keys asked for in one statement; SQLite takes 32,766


class GuardedSqliteOnlineStoreConfig(SqliteOnlineStoreConfig):
    """As of the stock store."""

    type: StrictStr = "multidomain.features.online.GuardedSqliteOnlineStore"  # type: ignore[assignment]


class GuardedSqliteOnlineStore(SqliteOnlineStore):
    """The stock store but for what is written and how times are kept."""

    def online_write_batch(
        self,
        config: RepoConfig,
        table: FeatureView,
        data: Sequence[tuple[EntityKey, dict[str, Value], datetime, datetime | None]],
        progress: Callable[[int], Any] | None,
    ) -> None:
        """Write each row whose time is not before that of the row there; all of them or, after an error, none."""
        version = config.entity_key_serialization_version

        def cells() -> Iterator[tuple[Any, ...]]:
            for entity, values, at, created in data:
                key = serialize_entity_key(entity, version)
                times = microseconds(at), created and microseconds(created)
                for name, value in values.items():
                    yield key, name, value.SerializeToString(), extract_text_and_num(value, False)[0], *times

        statement = (
            f"INSERT INTO {self._table(config, table)} "
            "(entity_key, feature_name, value, value_text, event_ts, created_ts) VALUES (?, ?, ?, ?, ?, ?) "
            "ON CONFLICT(entity_key, feature_name) DO UPDATE SET value = excluded.value, "
            "value_text = excluded.value_text, event_ts = excluded.event_ts, created_ts = excluded.created_ts "
            "WHERE excluded.event_ts >= event_ts"
        )
        connection = self._get_conn(config)
        try:
            with connection:
                connection.executemany(statement, cells())
        except sqlite3.OperationalError as error:
            if not _no_table(error):
                raise
            self.update(config, [], [table], [], [], partial=True)
            with connection:
                connection.executemany(statement, cells())
        if progress:
            progress(len(data))

    def online_read(
        self,
        config: RepoConfig,
        table: FeatureView,
        entity_keys: list[EntityKey],
        requested_features: list[str] | None = None,
    ) -> list[tuple[datetime | None, dict[str, Value] | None]]:
        """Time and features of each key, (None, None) of one that is not there."""
        version = config.entity_key_serialization_version
        keys = [serialize_entity_key(entity, version) for entity in entity_keys]
        wanted = None if requested_features is None else set(requested_features)
        found: dict[bytes, dict[str, Value]] = {}
        times: dict[bytes, int] = {}
        columns = "entity_key, feature_name, value, event_ts + 0"  # a sum has no declared type: not taken for seconds
        for key, feature, value, time in self._cells(config, table, keys, columns):
            if wanted is None or feature in wanted:
                if key not in found:
                    found[key], times[key] = {}, time
                found[key][feature] = Value.FromString(value)
        moments = {key: EPOCH + timedelta(microseconds=time) for key, time in times.items()}
        return [(moments[key], found[key]) if key in found else (None, None) for key in keys]

    def read_rows(self, config: RepoConfig, asked: Sequence[Asked]) -> list[list[list[Any]]]:
        """For each thing asked a row for each entity, with a value for each feature; None where there is none."""
        return [self._rows(config, one) for one in asked]

    def _rows(self, config: RepoConfig, asked: Asked) -> list[list[Any]]:
        keys, width, first = entity_bytes(asked.names, asked.keys), asked.width, 0
        rows: dict[bytes, list[Any]] = {key: [None] * width for key in keys}
        for table, columns in asked.wanted:
            place = {column: first + i for i, column in enumerate(columns)}
            for key, feature, value in self._cells(config, table, keys, "entity_key, feature_name, value"):
                if feature in place:
                    rows[key][place[feature]] = held(value)
            first += len(columns)
        return list(rows.values())

    def _cells(
        self, config: RepoConfig, table: FeatureView, keys: list[bytes], columns: str
    ) -> Iterator[tuple[Any, ...]]:
        """These columns of everything the view has of these keys."""
        connection, name = self._get_conn(config), self._table(config, table)
        for first in range(0, len(keys), READ):
            part = keys[first : first + READ]
            try:
                cells = connection.execute(
                    f"SELECT {columns} FROM {name} WHERE entity_key IN ({', '.join('?' * len(part))})", part
                )
            except sqlite3.OperationalError as error:
                if _no_table(error):
                    return
                raise
            yield from cells

    def _get_conn(self, config: RepoConfig) -> sqlite3.Connection:
        if self._conn is None:
            connection: sqlite3.Connection = super()._get_conn(config)
            connection.execute(f"PRAGMA busy_timeout = {WAIT}")
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            return connection
        return self._conn

    def _table(self, config: RepoConfig, table: FeatureView) -> str:
        name = _table_id(config.project, table, config.registry.enable_online_feature_view_versioning)
        return '"' + name.replace('"', '""') + '"'


def _no_table(error: sqlite3.OperationalError) -> bool:
    """Whether the file was removed since the view was registered: then nothing of it is there."""
    return str(error).startswith("no such table")
