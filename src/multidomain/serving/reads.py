"""Rows of the online store, read for requests.

``FeatureStore.get_online_features`` looks up every view in the registry at every call, wraps each value in a response
with a status and a time, and is taken apart again. A ranker asks for the same features each time: here views are
resolved once, and a request's keys of all kinds go together to the ``read_rows`` of the online store; one that lacks
it is asked by Feast's ``online_read``, view by view. Nobody looks at a view's ttl, as Feast 0.67 does not online; the
views here have none.

Rows that no event changes, those of views without the user among their keys, may be kept for some seconds:
:class:`RowCache`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..errors import ConfigurationError, DataError
from ..features.definitions import PUSHED
from ..features.rows import VERSION, Asked, plain
from ..features.views import View

if TYPE_CHECKING:
    from feast import FeatureStore, FeatureView, RepoConfig

Names = tuple[str, ...]  # the join keys that make one kind of key
Key = tuple[str, ...]  # their values
Row = tuple[Any, ...]
Place = tuple[str, Names, tuple[tuple[str, Names], ...]]  # project, kind of key, views with the features read of each
ReadRows = Callable[["RepoConfig", Sequence[Asked]], list[list[list[Any]]]]  # see Asked


class RowCache:
    """Rows read a short while ago, of the views that are the same for every user.

    A row is used while less than ``seconds`` have passed since it was asked for, and never after. What
    ``kedro run --pipeline=materialize`` writes is therefore seen at most so much later; what an event changes is of the
    user, is never kept and is seen at once. Several threads may share one, each with a ranker of its own.

    Args:
        seconds: how long a row is used.
        rows: kept of each view at the most; the one read longest ago makes way.
        clock: seconds that only grow.

    Raises:
        ConfigurationError: ``seconds`` is not above 0, or ``rows`` is below 1.
    """

    def __init__(self, *, seconds: float, rows: int, clock: Callable[[], float] = time.monotonic) -> None:
        if not seconds > 0 or rows < 1:
            raise ConfigurationError(
                f"RowCache(seconds={seconds}, rows={rows}): seconds must be above 0 and rows at least 1. "
                "To keep no rows, give the ranker no cache."
            )
        self.seconds, self.rows, self.clock = seconds, rows, clock
        self._kept: dict[Place, dict[Key, tuple[float, Row]]] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return sum(map(len, self._kept.values()))

    def find(self, place: Place, keys: Iterable[Key]) -> dict[Key, Row]:
        """The rows of these keys that may still be used."""
        oldest = self.clock() - self.seconds
        with self._lock:
            kept = self._kept.get(place, {})
            found = ((key, kept[key]) for key in keys if key in kept)
            return {key: row for key, (read, row) in found if read > oldest}

    def keep(self, place: Place, rows: Mapping[Key, Row], read: float) -> None:
        """Keep rows that were asked for at the time ``read``."""
        with self._lock:
            kept = self._kept.setdefault(place, {})
            for key, row in rows.items():
                if key not in kept or kept[key][0] <= read:
                    kept.pop(key, None)  # to the end of the order
                    kept[key] = read, row
            for key in list(kept)[: max(0, len(kept) - self.rows)]:
                del kept[key]


class OnlineReader:
    """Reads features of some views.

    Attributes:
        columns: of each kind of key the views that have it and the features read of each, in the order of a row.

    Args:
        store: Feast's, with the project the views are registered in.
        views: which ones.
        features: to read; views have others, which are left.
        cache: for rows that no event changes; nothing is kept without one.

    Raises:
        DataError: a view, or a feature of it, is not registered.
    """

    def __init__(
        self, *, store: FeatureStore, views: Sequence[View], features: Collection[str], cache: RowCache | None = None
    ) -> None:
        self._config, self._cache, self._read_rows = store.config, cache, _read_rows(store)
        self._wanted: dict[Names, tuple[tuple[FeatureView, Names], ...]] = {}
        for view in views:
            columns = tuple(column.name for column in view.columns if column.name in features)
            self._wanted[view.keys] = (*self._wanted.get(view.keys, ()), (_registered(store, view, columns), columns))
        self.columns = {
            names: {view.name: columns for view, columns in wanted} for names, wanted in self._wanted.items()
        }
        changing = {view.keys for view in views if "user" in view.keys or view.kind in PUSHED}
        self._places: dict[Names, Place] = {
            names: (store.project, names, tuple(columns.items()))
            for names, columns in self.columns.items()
            if names not in changing
        }

    def rows(self, asked: Mapping[Names, Sequence[Key]]) -> dict[Names, list[Row]]:
        """For each kind of key a row for each of the keys, which are all different; None for what is not there."""
        if self._cache is None:
            return self._read(asked)
        kept = {names: self._cache.find(place, asked[names]) for names, place in self._places.items() if names in asked}
        lacking = {names: [key for key in keys if key not in kept.get(names, ())] for names, keys in asked.items()}
        start = self._cache.clock()
        read = {names: dict(zip(lacking[names], rows, strict=True)) for names, rows in self._read(lacking).items()}
        for names in kept:
            self._cache.keep(self._places[names], read[names], start)
        return {names: [(kept.get(names, {}) | read[names])[key] for key in keys] for names, keys in asked.items()}

    def nothing(self, asked: Mapping[Names, Sequence[Key]]) -> dict[Names, list[Row]]:
        """What :meth:`rows` gives of keys that nothing is known of, without looking."""
        width = {names: sum(map(len, columns.values())) for names, columns in self.columns.items()}
        return {names: [(None,) * width[names]] * len(keys) for names, keys in asked.items()}

    def _read(self, asked: Mapping[Names, Sequence[Key]]) -> dict[Names, list[Row]]:
        things = [Asked(names=names, keys=keys, wanted=self._wanted[names]) for names, keys in asked.items()]
        found = self._read_rows(self._config, things)
        return {one.names: [tuple(row) for row in rows] for one, rows in zip(things, found, strict=True)}


def _registered(store: FeatureStore, view: View, columns: Names) -> FeatureView:
    from feast.errors import FeatureViewNotFoundException

    remedy = "Register what the schema says now: kedro run --nodes=apply_feature_repository; then materialize."
    try:
        registered = store.get_feature_view(view.name)
    except FeatureViewNotFoundException as error:
        raise DataError(f"Feast project '{store.project}' has no view '{view.name}'. {remedy}") from error
    known = [feature.name for feature in registered.features]
    if unknown := [name for name in columns if name not in known]:
        raise DataError(
            f"View '{view.name}' of Feast project '{store.project}' has no {', '.join(unknown)}; it has "
            f"{', '.join(known)}. {remedy}"
        )
    return registered


def _read_rows(store: FeatureStore) -> ReadRows:
    """The online store's own ``read_rows``, or the same by what every online store has."""
    provider: Any = store._get_provider()
    if hasattr(provider.online_store, "read_rows") and store.config.entity_key_serialization_version == VERSION:
        own: ReadRows = provider.online_store.read_rows
        return own

    from feast.protos.feast.types.EntityKey_pb2 import EntityKey
    from feast.protos.feast.types.Value_pb2 import Value

    def read(config: RepoConfig, one: Asked) -> list[list[Any]]:
        values = [[Value(string_val=part) for part in key] for key in one.keys]
        entities = [EntityKey(join_keys=one.names, entity_values=key) for key in values]
        rows: list[list[Any]] = [[] for _ in entities]
        for view, columns in one.wanted:
            found = provider.online_read(config, view, entities, list(columns)) if entities else []
            for row, (_, known) in zip(rows, found, strict=True):
                row += [plain((known or {}).get(column)) for column in columns]
        return rows

    return lambda config, asked: [read(config, one) for one in asked]
