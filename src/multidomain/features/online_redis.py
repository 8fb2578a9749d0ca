"""Feast's Redis online store, which answers everything a request asks for in one round trip.

The stock store reads view by view, and sends a command for each view and entity although views with the same keys lie
in one hash. Here one command reads all features of an entity, and all commands of a request go together.

``online_store: {type: multidomain.features.online_redis.BatchedRedisOnlineStore}`` in ``feature_store.yaml`` chooses
this store; it keeps what ``type: redis`` keeps. Imported by Feast only: nothing else of the package loads it at start.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from feast.infra.online_stores.helpers import _mmh3
from feast.infra.online_stores.redis import RedisOnlineStore, RedisOnlineStoreConfig, _versioned_fv_name
from feast.repo_config import RepoConfig
from pydantic import StrictStr

from .rows import Asked, entity_bytes, held


class BatchedRedisOnlineStoreConfig(RedisOnlineStoreConfig):
    """As of the stock store."""

    type: StrictStr = "multidomain.features.online_redis.BatchedRedisOnlineStore"  # type: ignore[assignment]


class BatchedRedisOnlineStore(RedisOnlineStore):
    """The stock store with :meth:`read_rows`."""

    def read_rows(self, config: RepoConfig, asked: Sequence[Asked]) -> list[list[list[Any]]]:
        """For each thing asked a row for each entity, with a value for each feature; None where there is none."""
        project = config.project.encode()
        commands = []
        for one in asked:
            fields = [
                _mmh3(f"{_versioned_fv_name(view, config)}:{column}")
                for view, columns in one.wanted
                for column in columns
            ]
            commands += [(key + project, fields) for key in entity_bytes(one.names, one.keys)]
        answers = iter(self._read_hash_fields(config, commands))
        return [[[held(bytes(cell)) if cell else None for cell in next(answers)] for _ in one.keys] for one in asked]
