"""What a stream is to training: rows with their positions, read on from any of them.

A broker becomes a source by four things (CONTRIBUTING, "Read a stream from another broker"): it delivers rows in one
order that stays the same, gives each a position, reads on after any position, and is told what is safe.
"""

from __future__ import annotations

import sys
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import pyarrow as pa

MOST_BAD = 10_000  # rows that are held before they are written
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
        rows: as many as asked for; fewer at the end of the stream, and where too many bad ones lie between.
        position: of the last row among them, good or bad.
        bad: those that lie between or before them.
    """

    rows: pa.Table
    position: Position
    bad: list[Bad] = field(default_factory=list)


def ticks(chunks: Iterable[Chunk], size: int, *, most_bad: int = MOST_BAD) -> Iterator[Tick]:
    """The rows of a source ``size`` at a time, whatever the sizes of its chunks; fewer where too many bad ones come.

    Args:
        chunks: of the source.
        size: good rows of a tick.
        most_bad: bad rows that end one.
    """
    pieces: list[pa.Table] = []
    bad: list[Bad] = []
    count, position, schema = 0, None, None
    for chunk in chunks:
        schema, start, first, of_bad = chunk.rows.schema, 0, 0, [one.place for one in chunk.bad]
        while start < len(chunk.rows) or first < len(chunk.bad):
            good = _place(chunk.places, start + size - count)
            spoilt = _place(of_bad, first + most_bad - len(bad))
            last = min(good, spoilt, max([*chunk.places[-1:], *of_bad[-1:]]))
            stop, end = bisect_right(chunk.places, last), bisect_right(of_bad, last)
            pieces.append(chunk.rows.slice(start, stop - start))
            bad, position = [*bad, *chunk.bad[first:end]], chunk.positions[last]
            start, first, count = stop, end, count + stop - start
            if last in (good, spoilt):
                yield Tick(pa.concat_tables(pieces), position, bad)
                pieces, count, bad, position = [], 0, [], None
    if position is not None and schema is not None:
        yield Tick(pa.concat_tables(pieces) if pieces else schema.empty_table(), position, bad)


def _place(places: Sequence[int], number: int) -> int:
    """Of the so-manieth among them; beyond every place where there are fewer."""
    return places[number - 1] if number <= len(places) else sys.maxsize
