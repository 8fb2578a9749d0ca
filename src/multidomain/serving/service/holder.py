"""The model that scores, and the one that takes its place when the registry's alias moves.

A request keeps the model it began with to its end, so a change drops none. The next model is loaded, given its
rankers and warmed up while the one before goes on answering; one that cannot be loaded changes nothing.
"""

from __future__ import annotations

import asyncio
import logging
import queue
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from ...features import repository
from ...features.views import views
from ...schema import Variant
from ..ranker import Ranker
from ..reads import RowCache
from . import logs
from .metrics import Metrics
from .settings import Settings
from .wire import Wire, wire

if TYPE_CHECKING:
    from feast import FeatureStore

    from ...packaging.scorer import Scorer


@dataclass(frozen=True, kw_only=True, eq=False)
class Loaded:
    """A version of the model, with all that answering takes.

    Attributes:
        name: as registered.
        version: of it.
        scorer: encoder and model.
        spare: a ranker that reads no store, for several threads.
        rankers: each with a store of its own, for one thread at a time.
        wire: the forms of requests.
        domains: that training knew.
    """

    name: str
    version: str
    scorer: Scorer
    spare: Ranker
    rankers: queue.LifoQueue[Ranker]
    wire: Wire
    domains: frozenset[str]


class Holder:
    """Follows an alias of a registered model.

    Attributes:
        freshness: of each view up to when it was loaded into the online store.

    Args:
        variant: what the model was trained on.
        architecture: the model's name.
        settings: ``alias``, ``poll_seconds``, ``readers`` and so on.
        metrics: counts swaps and failures.
    """

    def __init__(self, *, variant: Variant, architecture: str, settings: Settings, metrics: Metrics) -> None:
        self.variant, self.architecture, self.settings, self.metrics = variant, architecture, settings, metrics
        self.freshness: Mapping[str, str | None] = {}
        self._current: Loaded | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="loader")

    @property
    def current(self) -> Loaded:
        """What scores now."""
        assert self._current is not None, "load() comes first"
        return self._current

    def load(self) -> None:
        """Load what the alias names, unless that is what scores already, and see how fresh features are.

        Raises:
            ConfigurationError: there is no such model or alias.
            DataError: the variant was never registered with Feast, or a view of it is not.
        """
        from ...packaging import registry

        name, version = registry.find(self.variant.key, self.architecture, self.settings.alias)
        before = self._current
        if before is None or before.version != version:
            loaded = self._load(name, version)
            self._current = loaded
            if before is not None:
                self.metrics.model.labels(before.name, before.version).set(0)
            self.metrics.model.labels(name, version).set(1)
            if before is not None:
                self.metrics.swaps.inc()
            logs.event("model loaded", model=name, version=version, before=before.version if before else None)
        self.freshness = self._freshness()

    async def follow(self) -> None:
        """Look again and again, until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(self.settings.poll_seconds)
            try:
                await loop.run_in_executor(self._thread, self.load)
            except Exception as error:
                self.metrics.failures.inc()
                logs.event("model not followed", level=logging.ERROR, **logs.explained(error))

    def close(self) -> None:
        """Let go of the thread."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _load(self, name: str, version: str) -> Loaded:
        from ...packaging import registry

        scorer = registry.scorer(name, version)
        settings = self.settings
        cache = RowCache(seconds=settings.cache_seconds, rows=settings.cache_rows) if settings.cache_seconds else None
        rankers: queue.LifoQueue[Ranker] = queue.LifoQueue()
        for _ in range(settings.readers):
            rankers.put(self._ranker(scorer, cache))
        spare = self._ranker(scorer, None)
        spare.warm()
        return Loaded(
            name=name,
            version=version,
            scorer=scorer,
            spare=spare,
            rankers=rankers,
            wire=wire(scorer.columns, spare.context, items=settings.max_items),
            domains=frozenset(scorer.encoder.domains),
        )

    def _ranker(self, scorer: Scorer, cache: RowCache | None) -> Ranker:
        store, _ = repository.service(self.variant)
        bounded(store, self.settings.store_timeout_seconds)
        return Ranker(variant=self.variant, store=store, scorer=scorer, cache=cache)

    def _freshness(self) -> dict[str, str | None]:
        store = repository.store(self.variant)
        found: dict[str, str | None] = {}
        for view in views(self.variant):
            end: datetime | None = store.get_feature_view(view.name).most_recent_end_time
            found[view.name] = end.isoformat() if end else None
            if end:
                self.metrics.loaded.labels(view.name).set(end.timestamp())
        return found


def bounded(store: FeatureStore, seconds: float) -> None:
    """Have the store's own reads end after a while, so that no thread waits for ever for one that is gone."""
    online: Any = store.config.online_store
    text = getattr(online, "connection_string", None)
    if text is not None:  # Redis
        for option in ("socket_timeout", "socket_connect_timeout"):
            if f"{option}=" not in text:
                text = f"{text},{option}={seconds}"
        online.connection_string = text
        return
    provider: Any = store._get_provider()
    connect: Callable[[Any], Any] | None = getattr(provider.online_store, "_get_conn", None)
    if connect is not None and getattr(online, "path", None):  # SQLite
        connect(store.config).execute(f"PRAGMA busy_timeout = {int(1000 * seconds)}")
