"""Writing lines: columns joined a part at a time, bad lines between them, and where each of those stands."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from multidomain.schema import Simulation
from multidomain.simulation.generate import Log, generate

PART = 200_000  # impressions drawn at a time


@dataclass(frozen=True, kw_only=True)
class Bad:
    """A line that is no row, without its end, and what must be said of it."""

    line: bytes
    reason: str


def parts(simulation: Simulation, *, first: int = 0) -> Iterator[Log]:
    """The log a part at a time, numbered from ``first``: the same users and items in each."""
    for number, start in enumerate(range(0, simulation.rows, PART), start=first):
        size = min(PART, simulation.rows - start)
        yield generate(dataclasses.replace(simulation, rows=size), part=number)


def codes(values: npt.NDArray[np.generic]) -> pa.Array:
    """Numbers as text."""
    return pa.array(values).cast(pa.string())


class LineFile:
    """A text file of one row per line.

    Args:
        path: where; its folder is made.
        header: the first line, or None.
        bad: lines put in after the 2nd, 4th, 6th … row, one each.
        end: of a line.

    Attributes:
        lines: how many there are so far, the header not counted.
        placed: the number of each bad line (the header being line 1), and the line.
    """

    def __init__(self, path: Path, *, header: bytes | None = None, bad: Sequence[Bad] = (), end: bytes = b"\n") -> None:
        self.path, self.lines, self.placed = path, 0, list[tuple[int, Bad]]()
        self._bad, self._end, self._header = list(bad), end, header is not None
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("wb")
        if header is not None:
            self._file.write(header + end)

    def write(self, columns: Sequence[pa.Array | pa.ChunkedArray], delimiter: str = ",") -> None:
        """One line per element; columns are text, a null is an empty cell."""
        filled = [pc.fill_null(column, "") for column in columns]
        lines = pc.binary_join_element_wise(*filled, delimiter).cast(pa.binary())
        if self._bad:
            lines = self._with_bad(lines)
        ended = pc.binary_join_element_wise(lines, pa.scalar(self._end, pa.binary()), pa.scalar(b"", pa.binary()))
        for chunk in ended.chunks if isinstance(ended, pa.ChunkedArray) else [ended]:
            self._file.write(_bytes(chunk))
        self.lines += len(lines)

    def __enter__(self) -> LineFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def _with_bad(self, lines: pa.Array | pa.ChunkedArray) -> pa.Array:
        """The first lines with a bad one after every second; what is left waits for the next part."""
        put: list[bytes] = []
        for index, line in enumerate(lines.to_pylist()):
            put.append(line)
            if index % 2 and self._bad:
                bad = self._bad.pop(0)
                put.append(bad.line)
                self.placed.append((self.lines + len(put) + self._header, bad))
        return pa.array(put, pa.binary())


def _bytes(array: pa.Array) -> bytes:
    """The values of a text array, one after the other."""
    if not len(array):
        return b""
    offsets = np.frombuffer(array.buffers()[1], np.int32)
    start, end = offsets[array.offset], offsets[array.offset + len(array)]
    return bytes(memoryview(array.buffers()[2])[start:end])
