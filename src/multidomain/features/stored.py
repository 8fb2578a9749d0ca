"""The rows of a feature view's source by number: picked by DuckDB, then read from the row groups that hold them."""

from __future__ import annotations

import contextlib
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from feast.data_source import DataSource
from feast.infra.offline_stores.duckdb import _read_data_source
from feast.infra.offline_stores.file_source import FileSource
from feast.repo_config import RepoConfig

from ..io.connection import quiet

PIECE = 50_000  # rows whose features are gathered at a time


class Rows(ABC):
    """Feature rows by number, in blocks that can be read alone."""

    relation: str
    number: str
    starts: np.ndarray  # the first row number of each block

    def register(self, con: duckdb.DuckDBPyConnection) -> None:
        """Make ``relation`` known to the connection; one that is a file's path needs nothing."""
        del con

    @abstractmethod
    def block(self, index: int, columns: list[str]) -> pa.Table:
        """One block of rows."""

    @abstractmethod
    def types(self, columns: list[str]) -> pa.Schema:
        """The Arrow types of these columns."""

    def gather(self, picked: np.ndarray, columns: list[str]) -> pa.Table:
        """The chosen rows in the order of ``picked`` (N,); -1 gives nulls. Copied a piece at a time."""
        blocks: dict[int, pa.Table] = {}
        pieces = [self.types(columns).empty_table()]
        for piece in _pieces(picked):
            order = np.argsort(piece, kind="stable")
            order = order[np.searchsorted(piece[order], 0) :]
            owner = np.searchsorted(self.starts, piece[order], side="right") - 1
            needed, first = np.unique(owner, return_index=True)
            blocks = {i: blocks[i] if i in blocks else self.block(i, columns) for i in needed.tolist()}
            cut = [*first.tolist(), len(order)]
            parts = [
                blocks[i].take(pa.array(piece[order[start:end]] - self.starts[i]))
                for i, start, end in zip(needed.tolist(), cut, cut[1:], strict=False)
            ]
            place = np.full(len(piece), -1, dtype=np.int64)
            place[order] = np.arange(len(order))
            together = pa.concat_tables([pieces[0], *parts]).combine_chunks()
            pieces.append(together.take(pa.array(place, mask=place < 0)))
        return pa.concat_tables(pieces)


class _ParquetRows(Rows):
    """One Parquet file; its blocks are its row groups."""

    number = "file_row_number"

    def __init__(self, path: str) -> None:
        self._file = pq.ParquetFile(path)
        self.relation = f"read_parquet('{path.replace(chr(39), chr(39) * 2)}', file_row_number = true)"
        sizes = [self._file.metadata.row_group(i).num_rows for i in range(self._file.num_row_groups)]
        self.starts = np.cumsum([0, *sizes])[:-1]

    def block(self, index: int, columns: list[str]) -> pa.Table:
        return self._file.read_row_group(index, columns=columns).select(columns).combine_chunks()

    def types(self, columns: list[str]) -> pa.Schema:
        schema = self._file.schema_arrow
        return pa.schema([schema.field(column) for column in columns])


class _ArrowRows(Rows):
    """Anything else the stock store reads, held in memory as one block."""

    relation, number = "__features", "__number"

    def __init__(self, table: pa.Table) -> None:
        self._table = table.append_column(self.number, pa.array(np.arange(table.num_rows)))
        self.starts = np.zeros(1, dtype=np.int64)

    def register(self, con: duckdb.DuckDBPyConnection) -> None:
        con.register(self.relation, self._table)

    def block(self, index: int, columns: list[str]) -> pa.Table:
        del index  # there is one
        return self._table.select(columns)

    def types(self, columns: list[str]) -> pa.Schema:
        return self._table.select(columns).schema


def source_rows(source: DataSource, config: RepoConfig) -> Rows:
    """The rows behind a view.

    Raises:
        FileNotFoundError: its file is not there.
    """
    if isinstance(source, FileSource) and "://" not in source.path:
        path = Path(FileSource.get_uri_for_file_path(config.repo_path, source.path))
        if path.is_file() and path.suffix == ".parquet":
            return _ParquetRows(str(path))
        if not path.exists() and not any(sign in source.path for sign in "*?["):
            raise FileNotFoundError(f"{path}, the source '{source.name}' of a feature view, is not there.")
    return _ArrowRows(_read_data_source(source, str(config.repo_path)).to_pyarrow())


@contextlib.contextmanager
def connected(config: RepoConfig) -> Iterator[duckdb.DuckDBPyConnection]:
    """A DuckDB of its own, bounded as the offline store's configuration says."""
    store = config.offline_store
    with (
        tempfile.TemporaryDirectory(prefix="multidomain-feast-") as spill,
        duckdb.connect(config={"memory_limit": store.memory_limit, "temp_directory": spill}) as con,
    ):
        con.execute("SET asof_loop_join_threshold = 0")  # the loop join it prefers for few entity rows is quadratic
        quiet(con)
        if store.threads:
            con.execute(f"SET threads = {store.threads}")
        yield con


def column_types(con: duckdb.DuckDBPyConnection, relation: str) -> dict[str, str]:
    """DuckDB's type of every column."""
    return {row[0]: row[1] for row in con.execute(f"DESCRIBE SELECT * FROM {relation}").fetchall()}


def epoch(column: str | None, types: dict[str, str]) -> str:
    """SQL for a time in microseconds since 1970 UTC; one without a zone is UTC."""
    name = quoted(str(column))
    return f"epoch_us({name})" if types[str(column)] == "TIMESTAMP WITH TIME ZONE" else f"epoch_us({name}::TIMESTAMP)"


def literal(value: str | int) -> str:
    """A value in SQL."""
    return str(value) if isinstance(value, int) else "'" + value.replace("'", "''") + "'"


def quoted(name: str) -> str:
    """A column's name in SQL."""
    return '"' + name.replace('"', '""') + '"'


def _pieces(rows: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(rows), PIECE):
        yield rows[start : start + PIECE]
