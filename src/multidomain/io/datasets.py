"""The datasets the catalog wires: tables, folders, the schema and the chosen variant."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from kedro.io import AbstractDataset, DataCatalog

from .atomic import replacing
from .connection import connection, distributed, embedded, engine_of

if TYPE_CHECKING:
    import ibis.expr.types as ir

    from ..comparison.papers import PaperTable as Table
    from ..schema import Schema, Variant


class ParquetTable(AbstractDataset[Any, "ir.Table"]):
    """One Parquet file, or folder of parts, as a lazy Ibis table.

    Saves an Ibis expression, an Arrow table, a pandas frame, or a callable ``write(path)`` that writes the file itself.
    An expression is written by the engine that holds its tables: DuckDB writes a file, Spark a folder of parts.
    A table that was loaded from another file and is passed on as it was is not written again: both names are of one
    file on disk then (files here are replaced, never changed).

    Args:
        filepath: of the file or folder.
        distributed: loaded by the environment's engine of tables (see :mod:`multidomain.io.connection`); otherwise by
            DuckDB, whatever the environment.
    """

    _loaded: ClassVar[dict[str, Path]] = {}  # the engine's name of each table -> its file

    def __init__(self, *, filepath: str, distributed: bool = False, metadata: dict[str, Any] | None = None) -> None:
        self._filepath = Path(filepath)
        self._distributed = distributed
        self.metadata = metadata

    def load(self) -> ir.Table:
        if self._distributed and distributed():
            table = connection().read_parquet(str(self._filepath))
        else:
            place = self._filepath / "part-*.parquet" if self._filepath.is_dir() else self._filepath
            table = embedded().read_parquet(str(place))
        self._loaded[table.get_name()] = self._filepath
        return table

    def save(self, data: Any) -> None:
        import pandas as pd
        import pyarrow as pa
        import pyarrow.parquet as pq

        with replacing(self._filepath) as temporary:
            if callable(data):
                data(temporary)
            elif isinstance(data, pd.DataFrame):
                pq.write_table(pa.Table.from_pandas(data, preserve_index=False), temporary, compression="zstd")
            elif isinstance(data, pa.Table):
                pq.write_table(data, temporary, compression="zstd")
            elif (source := self._unchanged(data)) is not None:
                _link(source, temporary)
            else:
                engine_of(data).to_parquet(data, str(temporary), compression="zstd")

    def _unchanged(self, data: ir.Table) -> Path | None:
        """The file of a table that was loaded and not worked on."""
        from ibis.expr.operations import DatabaseTable

        operation = data.op()
        return self._loaded.get(operation.name) if isinstance(operation, DatabaseTable) else None

    def preview(self, nrows: int = 20) -> Any:
        """The first rows, for kedro-viz."""
        from kedro_datasets._typing import TablePreview

        frame = self.load().limit(nrows).to_pandas()
        return TablePreview(frame.astype(str).to_dict(orient="split"))

    def _exists(self) -> bool:
        return self._filepath.exists()

    def _describe(self) -> dict[str, Any]:
        return {"filepath": str(self._filepath)}


def _link(source: Path, target: Path) -> None:
    if source.is_dir():
        target.mkdir()
        for part in source.iterdir():
            _link(part, target / part.name)
        return
    try:
        os.link(source, target)
    except OSError:  # another disk, or one without links
        shutil.copyfile(source, target)


class Folder(AbstractDataset[Callable[[Path], None], Path]):
    """A folder of files written together. Saves a callable ``write(folder)``; loads the folder's path."""

    def __init__(self, *, filepath: str, metadata: dict[str, Any] | None = None) -> None:
        self._filepath = Path(filepath)
        self.metadata = metadata

    def load(self) -> Path:
        return self._filepath

    def save(self, data: Callable[[Path], None]) -> None:
        with replacing(self._filepath) as temporary:
            temporary.mkdir()
            data(temporary)

    def _exists(self) -> bool:
        return self._filepath.is_dir()

    def _describe(self) -> dict[str, Any]:
        return {"filepath": str(self._filepath)}


class WorkingFolder(AbstractDataset[None, Path]):
    """A folder that a node keeps files in while it works, such as checkpoints. Only ever an input."""

    def __init__(self, *, filepath: str, metadata: dict[str, Any] | None = None) -> None:
        self._filepath = Path(filepath)
        self.metadata = metadata

    def load(self) -> Path:
        self._filepath.mkdir(parents=True, exist_ok=True)
        return self._filepath

    def save(self, data: None) -> None:
        raise TypeError("a working folder is only ever an input")

    def _describe(self) -> dict[str, Any]:
        return {"filepath": str(self._filepath)}


class SchemaFile(AbstractDataset[None, "Schema"]):
    """The schema of one log, read by :func:`multidomain.schema.load`."""

    def __init__(self, *, name: str, metadata: dict[str, Any] | None = None) -> None:
        self._name = name
        self.metadata = metadata

    def load(self) -> Schema:
        from .. import schema

        return schema.load(self._name)

    def save(self, data: None) -> None:
        raise TypeError("schemas are written by people")

    def _describe(self) -> dict[str, Any]:
        return {"name": self._name}


class PaperTable(AbstractDataset[None, "Table"]):
    """A table of a paper, read by :func:`multidomain.comparison.papers.load`."""

    def __init__(self, *, name: str | None, metadata: dict[str, Any] | None = None) -> None:
        self._name = name
        self.metadata = metadata

    def load(self) -> Table:
        from ..comparison import papers

        return papers.load(self._name)

    def save(self, data: None) -> None:
        raise TypeError("the tables of papers are written by people")

    def _describe(self) -> dict[str, Any]:
        return {"name": self._name}


class Choice(AbstractDataset[None, "Variant"]):
    """The variant chosen for this run: one domain, split, feature set and label of the schema."""

    def __init__(
        self,
        *,
        name: str,
        domain: str | None = None,
        split: str | None = None,
        features: str | None = None,
        label: str | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        self._name = name
        self._choice = {"domain": domain, "split": split, "features": features, "label": label}
        self.metadata = metadata

    def load(self) -> Variant:
        from .. import schema

        return schema.load(self._name).variant(**self._choice)

    def save(self, data: None) -> None:
        raise TypeError("a variant is chosen by parameters")

    def _describe(self) -> dict[str, Any]:
        return {"name": self._name, **self._choice}


def place_of(catalog: DataCatalog, name: str) -> Path | None:
    """The file or folder a dataset is kept in, or None if it lives in memory."""
    filepath = getattr(catalog.get(name), "_filepath", None)
    return Path(str(filepath)) if filepath is not None else None
