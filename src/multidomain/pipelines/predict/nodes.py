"""Score a CSV or Parquet file of rows as the feature stage delivers them."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ...errors import ConfigurationError, DataError
from ...schema import Variant

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

logger = logging.getLogger(__name__)
CHUNK = 65_536  # rows in memory at a time
KEYS = ("impression_id", "user", "item", "group", "timestamp", "domain", "label", "split")  # passed through if there
READERS = {
    ".parquet": "read_parquet({file})",
    ".csv": "read_csv({file}, header = true, all_varchar = true)",
    ".tsv": "read_csv({file}, header = true, all_varchar = true, delim = '\t')",
}
Writer = Callable[[Path], None]


def score_file(variant: Variant, file: str | None, architecture: str, version: int | str | None) -> Writer:
    """Score every row of a file with the champion of the current data set and variant, or with the version asked for.

    Args:
        variant: names the model, together with ``architecture``.
        file: a CSV, TSV or Parquet file with the model's input columns; lists in text are written ``[a, b]``.
        architecture: star, dnn ...
        version: of the registered model; None: the champion.

    Returns:
        what writes the scores in the order of the rows: the key columns the file has, ``score``, ``model_version``.

    Raises:
        ConfigurationError: no file given, or no such model.
        DataError: the file cannot be read, lacks a column, or holds a value of another type.
    """
    from ...packaging import registry

    name, number = registry.find(variant.key, architecture, version)
    path = _existing(file)
    scorer = registry.scorer(name, number)
    check(path, scorer.columns)
    logger.info("scoring %s with %s version %s", path, name, number)

    def write(target: Path) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        writer = None
        try:
            for keys, inputs in read(path, scorer.columns):
                scored = keys.append_column("score", pa.array(scorer.score(inputs)))
                scored = scored.append_column("model_version", pa.array([int(number)] * len(scored), pa.int32()))
                writer = writer or pq.ParquetWriter(target, scored.schema, compression="zstd")
                writer.write_table(scored)
        finally:
            if writer is not None:
                writer.close()

    return write


def check(path: Path, columns: Mapping[str, pa.DataType]) -> None:
    """Look through a file before any of it is scored.

    Raises:
        DataError: it cannot be read, has no rows, lacks a column, or holds values that are not of their column's type.
    """
    with _opened(path) as (connection, source):
        there = _columns(connection, source)
        missing = [name for name in columns if name not in there]
        if missing:
            raise DataError(
                f"{path} lacks {_listed(missing)}. The model reads {_listed(columns)}; the file has {_listed(there)}. "
                "Rows are scored as the feature stage delivers them: see training_frame."
            )
        differing = [name for name, kind in columns.items() if there[name] != _sql(kind)]
        wrong = [f"{_name(name)} IS NOT NULL AND TRY_{_cast(name, columns[name])} IS NULL" for name in differing]
        counted = ", ".join(["count(*)", *(f"count_if({condition})" for condition in wrong)])
        rows, *counts = connection.execute(f"SELECT {counted} FROM {source}").fetchone() or (0,)
        if not rows:
            raise DataError(f"{path} holds no rows to score.")
        for name, condition, count in zip(differing, wrong, counts, strict=True):
            if count:
                query = f"SELECT CAST({_name(name)} AS VARCHAR) FROM {source} WHERE {condition} LIMIT 1"
                example = connection.execute(query).fetchall()[0][0]
                raise DataError(
                    f"{path}: column '{name}' must hold {columns[name]}; {count:,} of {rows:,} rows do not, "
                    f"such as {example!r}."
                )


def read(path: Path, columns: Mapping[str, pa.DataType]) -> Iterator[tuple[pa.Table, pa.Table]]:
    """A file in chunks: the key columns it has, and the input columns in the model's types."""
    import pyarrow as pa

    with _opened(path) as (connection, source):
        keys = [name for name in KEYS if name in _columns(connection, source)]
        chosen = [f"{_name(name)} AS {_name('key ' + name)}" for name in keys]
        chosen += [f"{_cast(name, kind)} AS {_name(name)}" for name, kind in columns.items()]
        for batch in connection.execute(f"SELECT {', '.join(chosen)} FROM {source}").to_arrow_reader(CHUNK):
            table = pa.Table.from_batches([batch])
            kept = table.select([f"key {name}" for name in keys]).rename_columns(keys)
            yield kept, table.select(list(columns)).cast(pa.schema(list(columns.items())))


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[tuple[duckdb.DuckDBPyConnection, str]]:
    """A connection of its own and what to select from there."""
    import duckdb

    try:
        with duckdb.connect() as connection:
            connection.execute("SET TimeZone = 'UTC'; SET enable_progress_bar = false")
            yield connection, READERS[path.suffix.lower()].format(file=_text(str(path)))
    except duckdb.Error as error:
        raise DataError(f"{path} cannot be read as {path.suffix[1:]}: {error}") from error


def _existing(file: str | None) -> Path:
    if not file:
        raise ConfigurationError(
            "No file to score: kedro run --pipeline=predict --params=input=FILE,architecture=star, where FILE is "
            "a CSV, TSV or Parquet file with the columns of the training frame."
        )
    path = Path(str(file)).expanduser()
    if path.suffix.lower() not in READERS:
        raise ConfigurationError(f"{path} cannot be scored: its name must end in one of {', '.join(READERS)}.")
    if not path.is_file():
        near = sorted(p.name for p in path.parent.iterdir() if p.suffix in READERS) if path.parent.is_dir() else []
        there = f"{path.parent} holds {', '.join(near[:10])}" if near else f"{path.parent} holds no such file"
        raise DataError(f"There is no file {path} to score ({there}).")
    return path


def _columns(connection: duckdb.DuckDBPyConnection, source: str) -> dict[str, str]:
    """Names and types."""
    return {row[0]: row[1] for row in connection.execute(f"DESCRIBE SELECT * FROM {source}").fetchall()}


def _cast(name: str, kind: pa.DataType) -> str:
    return f"CAST({_name(name)} AS {_sql(kind)})"


def _sql(kind: pa.DataType) -> str:
    import pyarrow as pa

    if pa.types.is_list(kind):
        return f"{_sql(kind.value_type)}[]"
    return {pa.string(): "VARCHAR", pa.int64(): "BIGINT", pa.float64(): "DOUBLE"}[kind]


def _name(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def _listed(names: Sequence[str] | Mapping[str, object]) -> str:
    return ", ".join(f"'{name}'" for name in names)
