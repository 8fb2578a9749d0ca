"""What a stream is to training: rows with their positions, read on from any of them.

A broker becomes a source by four things (CONTRIBUTING, "Read a stream from another broker"): it delivers rows in one
order that stays the same, gives each a position, reads on after any position, and is told what is safe.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import pyarrow as pa

MOST_BAD = 8192  # rows that cannot be learnt, held before they are written out
Position = Any  # of a row: what JSON can hold, such as ["0001.parquet", 41] or "1700000000000-0"


@dataclass(frozen=True)
class Bad:
    """A row that cannot be learnt.

    Attributes:
        place: how many rows of its chunk come before it, the bad ones counted.
        position: in the stream.
        reason: what is wrong with it.
        text: as much of the row as can be shown.
    """

    place: int
    position: Position
    reason: str
    text: str


@dataclass(frozen=True)
class Chunk:
    """Rows that a source delivers together, however many it likes.

    Attributes:
        rows: the N good ones, with the columns asked for.
        places: (N,) how many rows of the chunk come before each, the bad ones counted; ascending.
        positions: of every row of the chunk, good or bad, by place.
        bad: the others, in order.
    """

    rows: pa.Table
    places: Sequence[int]
    positions: Sequence[Position]
    bad: tuple[Bad, ...] = ()


class Source(Protocol):
    """A stream of impressions in order of time."""

    def chunks(self, after: Position | None) -> Iterator[Chunk]:
        """Every row after a position (None: from the first on), until the stream ends; waits for rows to come.

        The same rows in the same order whenever the same position is given, in chunks of any sizes.

        Raises:
            DataError: rows that nobody can read; the message says where, and what to do.
        """
        ...

    def commit(self, position: Position) -> None:
        """All rows up to and with this one are in a checkpoint on disk: they need not be delivered again."""
        ...


@dataclass
class Tick:
    """Rows that are worked on together.

    Attributes:
        rows: as many as asked for; fewer at the end of the stream, and where too many bad ones lie among them.
        position: of the last row among them, good or bad.
        bad: those that lie between or before them.
        last: whether the stream ended before there were as many as asked for.
    """

    rows: pa.Table
    position: Position
    bad: list[Bad] = field(default_factory=list)
    last: bool = False


def ticks(chunks: Iterable[Chunk], size: int, *, most_bad: int = MOST_BAD) -> Iterator[Tick]:
    """The rows of a source ``size`` at a time, whatever the sizes of its chunks.

    A tick ends with its ``size``-th good row or its ``most_bad``-th bad one, whichever comes first: rows of which none
    is good must not be held until one is.
    """
    pieces: list[pa.Table] = []
    bad: list[Bad] = []
    count, position, schema = 0, None, None
    for chunk in chunks:
        schema, good, odd = chunk.rows.schema, 0, 0  # of the chunk's: how many are in ticks
        while good < len(chunk.rows) or odd < len(chunk.bad):
            stop, stop_bad, last = _reach(chunk, good, odd, size - count, most_bad - len(bad))
            if stop > good:
                pieces.append(chunk.rows.slice(good, stop - good))
            count, good = count + stop - good, stop
            bad, odd = [*bad, *chunk.bad[odd:stop_bad]], stop_bad
            position = chunk.positions[last]
            if count == size or len(bad) == most_bad:
                yield Tick(_joined(pieces, schema), position, bad)
                pieces, count, bad, position = [], 0, [], None
    if position is not None and schema is not None:
        yield Tick(_joined(pieces, schema), position, bad, last=True)


def _reach(chunk: Chunk, good: int, odd: int, room: int, room_bad: int) -> tuple[int, int, int]:
    """Up to which of its good rows, and of its bad ones, a chunk goes into a tick; the place of the last of them."""
    stop, stop_bad = min(good + room, len(chunk.rows)), len(chunk.bad)
    if stop > good:  # what lies behind the last good row waits for the next
        stop_bad = bisect_left(chunk.bad, chunk.places[stop - 1], odd, key=_place)
    if stop_bad - odd >= room_bad:
        stop_bad = odd + room_bad
        last = chunk.bad[stop_bad - 1].place
        return bisect_left(chunk.places, last, good, stop), stop_bad, last
    return stop, stop_bad, chunk.places[stop - 1] if stop > good else chunk.bad[stop_bad - 1].place


def _place(bad: Bad) -> int:
    return bad.place


def _joined(pieces: list[pa.Table], schema: pa.Schema) -> pa.Table:
    return pa.concat_tables(pieces) if pieces else schema.empty_table()
