"""What Feast materializes with: the latest row of every key, exactly as the views hold it.

Feast's own engine takes the rows through pandas, which makes floats of whole numbers beside nulls and refuses lists of
them. Here they go from Parquet to the online store as Arrow: DuckDB picks the number of each key's latest row, the rows
are read a piece at a time.

``batch_engine: {type: multidomain.features.engine.ArrowEngine}`` in ``feature_store.yaml`` chooses this engine.
Imported by Feast only: nothing else of the package loads it at start.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa
from feast.data_source import DataSource
from feast.feature_view import FeatureView
from feast.infra.common.materialization_job import MaterializationJobStatus, MaterializationTask
from feast.infra.compute_engines.local.compute import LocalComputeEngine
from feast.infra.compute_engines.local.job import LocalMaterializationJob
from feast.infra.registry.base_registry import BaseRegistry
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import DoubleList, Int64List, StringList, Value
from feast.repo_config import FeastConfigBaseModel, RepoConfig
from pydantic import StrictStr

from ..progress import progress
from .stored import Rows, column_types, connected, epoch, quoted, source_rows
from .times import microseconds

PIECE = 10_000  # rows written at a time
Written = tuple[EntityKey, dict[str, Value], datetime, datetime | None]


class ArrowEngineConfig(FeastConfigBaseModel):
    """It has no options."""

    type: StrictStr = "multidomain.features.engine.ArrowEngine"


class ArrowEngine(LocalComputeEngine):
    """The local engine but for what it writes online, and how."""

    def _materialize_one(self, registry: BaseRegistry, task: MaterializationTask, **_: Any) -> LocalMaterializationJob:
        del registry
        job = f"{task.feature_view.name}-{task.start_time}-{task.end_time}"
        try:
            self._write(task)
        except Exception as error:  # Feast raises it again
            return LocalMaterializationJob(job_id=job, status=MaterializationJobStatus.ERROR, error=error)
        return LocalMaterializationJob(job_id=job, status=MaterializationJobStatus.SUCCEEDED)

    def _write(self, task: MaterializationTask) -> None:
        view, config = task.feature_view, self.repo_config
        source = source_rows(view_source(view), config)
        numbers = latest(view, config, source, task.start_time, task.end_time)
        with progress(total=len(numbers), what=f"load {view.name}") as bar:
            for first in range(0, len(numbers), PIECE):
                rows = written(view, _read(view, source, numbers[first : first + PIECE]))
                self.online_store.online_write_batch(config, view, rows, bar.update)


def latest(view: FeatureView, config: RepoConfig, rows: Rows, start: datetime, end: datetime) -> np.ndarray:
    """Numbers of the latest rows of all keys between two times, both included: (U,) int64, in their order.

    Of several with the same key and time the one created last counts, or without that column the last in the file.
    """
    source = view_source(view)
    with connected(config) as con:
        rows.register(con)
        types = column_types(con, rows.relation)
        time, *created = (epoch(name, types) for name in stored_names(view, times_of(source)))
        creation = f"coalesce({created[0]}, -9223372036854775808)" if created else "0"
        keys = [quoted(name) for name in stored_names(view, view.join_keys)]
        there = [
            f"{time} BETWEEN {microseconds(start)} AND {microseconds(end)}",
            *(f"{key} IS NOT NULL" for key in keys),
        ]
        order = f"{{'a': {time}, 'b': {creation}, 'c': {rows.number}}}"
        found = con.execute(
            f"SELECT arg_max({rows.number}, {order}) AS picked FROM {rows.relation} "
            f"WHERE {' AND '.join(there)} GROUP BY {', '.join(keys)}"
        ).fetchnumpy()["picked"]
    return np.sort(np.asarray(found, dtype=np.int64))


def _read(view: FeatureView, rows: Rows, numbers: np.ndarray) -> pa.Table:
    """Keys, features, time and creation time of some rows, as the view calls them."""
    source = view_source(view)
    names = [*view.join_keys, *(field.name for field in view.features)]
    names += times_of(source)
    return rows.gather(numbers, stored_names(view, names)).rename_columns(names)


def times_of(source: DataSource) -> list[str]:
    """The columns of the event time and, where there is one, of the creation time."""
    return [time for time in (source.timestamp_field, source.created_timestamp_column) if time]


def view_source(view: FeatureView) -> DataSource:
    """Where a view's rows are."""
    if view.batch_source is None:
        raise ValueError(f"Feature view '{view.name}' has no batch source to materialize from.")
    return view.batch_source


def stored_names(view: FeatureView, names: Sequence[str]) -> list[str]:
    """What the view's file calls them."""
    stored = {new: old for old, new in view_source(view).field_mapping.items()}
    return [stored.get(name, name) for name in names]


def written(view: FeatureView, rows: pa.Table) -> list[Written]:
    """Rows in the form an online store takes: key, features, time, creation time."""
    names = [field.name for field in view.features]
    values = {name: _values(rows[name]) for name in (*view.join_keys, *names)}
    keys = zip(*(values[key] for key in view.join_keys), strict=True)
    entities = [EntityKey(join_keys=view.join_keys, entity_values=key) for key in keys]
    features = [dict(zip(names, row, strict=True)) for row in zip(*(values[name] for name in names), strict=True)]
    source = view_source(view)
    times, created = rows[source.timestamp_field].to_pylist(), source.created_timestamp_column
    creations = rows[created].to_pylist() if created else [None] * len(times)
    return list(zip(entities, features, times, creations, strict=True))


def _values(column: pa.ChunkedArray) -> list[Value]:
    """Every cell; a null is a value without content."""
    make = _MAKE[str(column.type)]
    return [Value() if value is None else make(value) for value in column.to_pylist()]


_MAKE: dict[str, Callable[[Any], Value]] = {
    "string": lambda value: Value(string_val=value),
    "int64": lambda value: Value(int64_val=value),
    "double": lambda value: Value(double_val=value),
    "list<element: string>": lambda value: Value(string_list_val=StringList(val=value)),
    "list<element: int64>": lambda value: Value(int64_list_val=Int64List(val=value)),
    "list<element: double>": lambda value: Value(double_list_val=DoubleList(val=value)),
}
