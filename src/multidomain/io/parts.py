"""Parquet as one file, which DuckDB writes, or as a folder of parts, which Spark writes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa


def part_files(path: Path) -> list[Path]:
    """A Parquet file, or the parts of a folder in the order of their rows."""
    return sorted(path.glob("part-*.parquet")) if path.is_dir() else [path]


def part_batches(path: Path, rows: int) -> Iterator[pa.RecordBatch]:
    """The rows of a file or folder in order, at most so many at a time."""
    import pyarrow.parquet as pq

    for part in part_files(path):
        with contextlib.closing(pq.ParquetFile(part)) as file:
            yield from file.iter_batches(batch_size=rows)


def rows_of(path: Path) -> int:
    """How many rows a Parquet file, or a folder of parts, has."""
    import pyarrow.parquet as pq

    return sum(int(pq.read_metadata(part).num_rows) for part in part_files(path))
