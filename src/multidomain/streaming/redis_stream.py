"""A stream of impressions in a Redis Stream, read by a consumer group.

An entry holds one impression: the field ``row``, a JSON object with the columns of the training frame. An entry with
the field ``end`` instead says that no more will come. Positions are the ids of entries. The group delivers every entry
to one consumer, and keeps it as pending until it is acknowledged: that happens when a checkpoint holds it, so after a
crash the same consumer is given again, in order, what no checkpoint holds.
"""

from __future__ import annotations

import io
import itertools
import json
import logging
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.json

from ..errors import ConfigurationError, DataError
from ..packaging.rows import shown
from .rows import SHOWN, sorted_out
from .source import Bad, Chunk, Position

logger = logging.getLogger(__name__)
ADDRESS = "MULTIDOMAIN_REDIS"  # host:port, as for the online store
ROW, END = b"row", b"end"
READ = 8192  # entries at a time
BLOCK_MS = 500  # a read waits so long for entries
ACKNOWLEDGED = 4096  # ids of one acknowledgement
T = TypeVar("T")


class RedisSource:
    """The rows of a Redis Stream; a position is the id of an entry, ``1700000000000-0``.

    Args:
        address: ``host:port``; None: ``$MULTIDOMAIN_REDIS``.
        key: of the stream; it may be made later.
        group: of consumers; made when there is none, to read from the first entry on.
        consumer: this reader's name in it, the same after a crash. One consumer at a time: order is that of the stream.
        schema: columns and types of the rows, see :func:`.rows.wanted`.
        idle_seconds: the stream has ended when nothing came for so long; None: when an entry says ``end``.
        retry_seconds: how long a server that is away is asked again.

    Raises:
        ConfigurationError: no address is given.
    """

    def __init__(
        self,
        *,
        address: str | None = None,
        key: str,
        group: str,
        consumer: str,
        schema: pa.Schema,
        idle_seconds: float | None = None,
        retry_seconds: float = 30.0,
    ) -> None:
        self.address = address or os.environ.get(ADDRESS, "")
        self.key, self.group, self.consumer, self.schema = key, group, consumer, schema
        self.idle_seconds, self.retry_seconds = idle_seconds, retry_seconds
        self._client = connect(self.address)
        self._held: list[bytes] = []  # delivered, not acknowledged
        self._last = b"0"  # delivered last
        self._broken = 0  # connections, so far
        self._end: bytes | None = None  # the entry that says so, once all before it were delivered

    def chunks(self, after: Position | None) -> Iterator[Chunk]:
        """See :class:`.source.Source`: first what was delivered before and not acknowledged, then what is new.

        Raises:
            DataError: the server stays away, or the stream no longer holds what was not acknowledged.
        """
        self._held, self._end, self._last = [], None, b"0"
        self._asked(self._make_group)
        done = (0, 0) if after is None else _number(str(after).encode())
        for entries in itertools.chain(self._pending(), self._new()):
            self._held += [one for one, _ in entries]
            self._last = entries[-1][0]
            lost = [one for one, values in entries if not values and _number(one) > done]
            if lost:
                raise DataError(
                    f"The Redis stream '{self.key}' at {self.address} no longer holds {len(lost):,} entries that were "
                    f"delivered and not learnt, the first {lost[0].decode()}: it was trimmed (XTRIM, MAXLEN). Keep "
                    "entries until they are acknowledged; to go on without these, acknowledge them (XACK)."
                )
            fresh = [(one, values) for one, values in entries if _number(one) > done]
            ends = [place for place, (_, values) in enumerate(fresh) if END in values]
            rows = fresh[: ends[0]] if ends else fresh
            if rows:
                yield self._chunk(rows)
            if ends:  # what comes behind it is of the next run
                self._end = fresh[ends[0]][0]
                return

    def commit(self, position: Position) -> None:
        """Acknowledge every entry up to this one."""
        upto = _number(str(position).encode())
        if self._end and not any(upto < _number(one) < _number(self._end) for one in self._held):
            upto = max(upto, _number(self._end))
        safe = [one for one in self._held if _number(one) <= upto]
        for start in range(0, len(safe), ACKNOWLEDGED):
            part = safe[start : start + ACKNOWLEDGED]
            self._asked(lambda part=part: self._client.xack(self.key, self.group, *part))  # type: ignore[misc]
        self._held = [one for one in self._held if _number(one) > upto]

    def _make_group(self) -> None:
        import redis

        try:
            self._client.xgroup_create(self.key, self.group, id="0", mkstream=True)
        except redis.ResponseError as error:
            if "BUSYGROUP" not in str(error):
                raise

    def _pending(self) -> Iterator[list[Any]]:
        """What this consumer was given after the last entry seen and did not acknowledge, in order of ids."""
        while entries := self._read(self._last, None):
            yield entries

    def _new(self) -> Iterator[list[Any]]:
        quiet = time.monotonic()
        while True:
            broken = self._broken
            entries = self._read(b">", BLOCK_MS)
            if self._broken > broken:  # a reply may be lost, whose entries are pending, as those of this one are
                entries = []
                for part in self._pending():
                    yield part
                    quiet = time.monotonic()
            if entries:
                yield entries
                quiet = time.monotonic()
            elif self.idle_seconds is not None and time.monotonic() - quiet > self.idle_seconds:
                return

    def _read(self, start: bytes, block: int | None) -> list[Any]:
        def read() -> list[Any]:
            given = {self.key: start}
            found = self._client.xreadgroup(self.group, self.consumer, given, count=READ, block=block)
            return list(found[0][1]) if found else []

        return self._asked(read)

    def _asked(self, call: Callable[[], T]) -> T:
        """Ask the server again while it is away."""
        import redis

        until, wait = time.monotonic() + self.retry_seconds, 0.1
        while True:
            try:
                return call()
            except (redis.ConnectionError, redis.TimeoutError) as error:
                self._broken += 1
                if time.monotonic() + wait > until:
                    raise DataError(
                        f"The Redis server at {self.address} does not answer: {error}. What was learnt up to the last "
                        "checkpoint is kept. Start the server, then the same command again."
                    ) from error
                logger.warning("The Redis server at %s does not answer; asked again in %.1f s", self.address, wait)
                time.sleep(wait)
                wait = min(2 * wait, 5.0)
            except redis.ResponseError as error:
                raise DataError(
                    f"The Redis stream '{self.key}' at {self.address} cannot be read: {error}. Look at the key's type "
                    "(TYPE) and its groups (XINFO GROUPS), then start the same command again."
                ) from error

    def _chunk(self, entries: Sequence[tuple[bytes, Mapping[bytes, bytes]]]) -> Chunk:
        positions = [one.decode() for one, _ in entries]
        texts = [values.get(ROW, b"") for _, values in entries]
        table = self._parsed(texts)
        places = np.arange(len(texts))
        bad: list[Bad] = []
        if table is None:  # at least one is damaged: each for itself
            parsed = [self._parsed([text]) for text in texts]
            places = np.array([at for at, one in enumerate(parsed) if one is not None], np.int64)
            bad = [
                Bad(at, positions[at], self._why(texts[at]), texts[at][:SHOWN].decode("utf-8", "replace"))
                for at, one in enumerate(parsed)
                if one is None
            ]
            good = [one for one in parsed if one is not None]
            table = pa.concat_tables(good) if good else self.schema.empty_table()
        rows, places, odd = sorted_out(table, places, positions)
        return Chunk(rows, places.tolist(), positions, tuple(sorted([*bad, *odd], key=lambda one: one.place)))

    def _parsed(self, texts: Sequence[bytes]) -> pa.Table | None:
        """The rows of these objects, one each; None where one of them is none, lacks a column or has another type."""
        if any(not text.startswith(b"{") or b"\n" in text for text in texts):
            return None
        found = _read_json(texts, self.schema)
        if found is None or len(found) != len(texts):
            return None
        if len(texts) == 1:  # a column that no row has is one of nulls; looked at where rows are few
            return found if self._complete(texts[0]) else None
        suspicious = any(column.null_count for column in found.columns)
        return None if suspicious and not all(self._complete(text) for text in texts) else found

    def _complete(self, text: bytes) -> bool:
        return all(b'"' + name.encode() + b'"' in text for name in self.schema.names)

    def _why(self, text: bytes) -> str:
        try:
            given = json.loads(text)
        except (ValueError, RecursionError) as error:
            return f"the field 'row' is no JSON object of one line: {error}"
        if not isinstance(given, dict):
            return "the field 'row' is no JSON object"
        missing = [name for name in self.schema.names if name not in given]
        if missing:
            return f"it lacks {', '.join(missing)}"
        for field in self.schema:
            alone = json.dumps({field.name: given[field.name]}).encode()
            if _read_json([alone], pa.schema([field])) is None:
                return f"{field.name} must hold {field.type}, got {shown(given[field.name])}"
        return "a key is there twice, or a value is not of its column's type"


def _read_json(texts: Sequence[bytes], schema: pa.Schema) -> pa.Table | None:
    """The columns of a schema of objects, a line each; None where they are not to be had."""
    try:
        return pa.json.read_json(
            io.BytesIO(b"\n".join(texts)),
            read_options=pa.json.ReadOptions(use_threads=False, block_size=max(1 << 20, 2 * max(map(len, texts)))),
            parse_options=pa.json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore"),
        )
    except pa.ArrowException:
        return None


def connect(address: str) -> Any:
    """A client of the server at ``host:port``.

    Raises:
        ConfigurationError: no address.
    """
    import redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    if not address:
        raise ConfigurationError(
            f"stream.source.address is not set, nor is the environment variable {ADDRESS}: host:port of the server."
        )
    host, _, port = address.partition(":")
    if not port.isdigit():
        raise ConfigurationError(f"stream.source.address must be host:port, such as localhost:6379, got {address!r}")
    never = Retry(NoBackoff(), 0)  # RedisSource asks again itself
    return redis.Redis(host=host, port=int(port), socket_timeout=30.0, retry=never)


def publish(client: Any, key: str, rows: pa.Table, *, end: bool = False) -> None:
    """Append impressions, one entry each, as a producer does; with ``end``, say that no more will come."""
    for start in range(0, len(rows), READ):
        pipe = client.pipeline(transaction=False)
        for row in rows.slice(start, READ).to_pylist():
            pipe.xadd(key, {ROW: json.dumps({name: _plain(value) for name, value in row.items()})})
        pipe.execute()
    if end:
        client.xadd(key, {END: "1"})


def _plain(value: Any) -> Any:
    """JSON knows no infinity: its text is refused as a row, and a NaN is a null."""
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    return value


def _number(entry: bytes) -> tuple[int, int]:
    first, _, second = entry.partition(b"-")
    return int(first), int(second or 0)
