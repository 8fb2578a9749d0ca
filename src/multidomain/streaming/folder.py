"""A stream of Parquet files that arrive in a folder.

The order of names is the order of time. A file counts when it has its name: write it under a name that begins with
``.`` or ``_``, or ends otherwise, and rename it. ``_SUCCESS`` says that no more will come.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import overload

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ..errors import ConfigurationError, DataError
from .rows import require, sorted_out, typed
from .source import Chunk, Position

CHUNK = 65_536  # rows read together
END = "_SUCCESS"


class FolderSource:
    """The rows of the files of a folder; a position is ``[file, row]``.

    Args:
        folder: exists.
        schema: columns and types of the rows, see :func:`.rows.wanted`.
        poll_seconds: between two looks for new files.
        idle_seconds: the stream has ended when no file came for so long; None: when there is ``_SUCCESS``.

    Raises:
        ConfigurationError: there is no such folder.
    """

    def __init__(
        self, folder: Path, schema: pa.Schema, *, poll_seconds: float = 1.0, idle_seconds: float | None = None
    ) -> None:
        if not folder.is_dir():
            raise ConfigurationError(f"stream.source.path: there is no folder {folder}. Make it, or name another one.")
        self.folder, self.schema = folder, schema
        self.poll_seconds, self.idle_seconds = poll_seconds, idle_seconds

    def chunks(self, after: Position | None) -> Iterator[Chunk]:
        """See :class:`.source.Source`.

        Raises:
            DataError: a file cannot be read, lacks a column, is gone, or came too late; the message names it.
        """
        name, row = ("", -1) if after is None else (str(after[0]), int(after[1]))
        if name and not (self.folder / name).is_file():
            name, row = name + "\0", -1  # gone since it was read: the next one
        elif name:
            yield from self._of(name, row + 1)
        before = {one for one in self._names() if one <= name}
        for new in self._arriving(before, name):
            yield from self._of(new, 0)

    def commit(self, position: Position) -> None:
        """Nothing: files stay where they are."""

    def _arriving(self, seen: set[str], last: str) -> Iterator[str]:
        """The names of files after ``last``, in order, as they come."""
        quiet = time.monotonic()
        while True:
            ended = (self.folder / END).exists()  # looked at first: what is there then is all there will be
            new = [name for name in self._names() if name not in seen]
            late = [name for name in new if name <= last]
            if late:
                raise DataError(
                    f"{self.folder / late[0]} came after {last}, which was read before it: the order of names is the "
                    f"order of time. Rename it to come after {max(self._names())}."
                )
            for name in new[:1]:  # a file that comes meanwhile may lie before the next one
                yield name
                seen, last, quiet = {*seen, name}, name, time.monotonic()
            if not new:
                if ended or (self.idle_seconds is not None and time.monotonic() - quiet > self.idle_seconds):
                    return
                time.sleep(self.poll_seconds)

    def _names(self) -> list[str]:
        return sorted(path.name for path in self.folder.glob("*.parquet") if path.name[0] not in "._")

    def _of(self, name: str, first: int) -> Iterator[Chunk]:
        """The rows of one file from a row on."""
        path = self.folder / name
        begin = 0
        for table in self._tables(path):
            start, begin = begin, begin + len(table)
            if begin > first:
                skipped = max(first - start, 0)
                yield self._chunk(path, table.slice(skipped), start + skipped)

    def _tables(self, path: Path) -> Iterator[pa.Table]:
        try:
            file = pq.ParquetFile(path)
            require(file.schema_arrow.names, self.schema, str(path))
            for batch in file.iter_batches(batch_size=CHUNK, columns=self.schema.names):
                yield pa.Table.from_batches([batch])
        except (pa.ArrowException, OSError) as error:
            raise DataError(
                f"{path} cannot be read: {error}. A file must be whole before it has its name: write it under a name "
                "that begins with '.', then rename it. Put it right, or take it away, and start the same command again."
            ) from error

    def _chunk(self, path: Path, table: pa.Table, start: int) -> Chunk:
        positions = _Rows(path.name, start, len(table))
        rows = typed(table, self.schema, str(path))
        good, places, bad = sorted_out(rows, np.arange(len(table)), positions)
        return Chunk(good, places.tolist(), positions, tuple(bad))


@dataclass(frozen=True)
class _Rows(Sequence[Position]):
    """``[file, start]`` … of ``count`` rows, each made when asked for."""

    file: str
    start: int
    rows: int

    def __len__(self) -> int:
        return self.rows

    @overload
    def __getitem__(self, place: int) -> Position: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[Position]: ...
    def __getitem__(self, place: int | slice) -> Position:
        if isinstance(place, slice):
            return [self[at] for at in range(*place.indices(self.rows))]
        return [self.file, self.start + place]
