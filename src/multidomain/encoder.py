"""The encoder: from rows as the feature stage delivers them to the arrays a model reads.

Fitted on the training split alone, stored as JSON and Parquet, and carried along by every packaged model, so
that training and serving encode with the same code and the same vocabularies. Ids are field-local:
0 is padding, 1 what training never saw (nulls included), the rest known values, most frequent first.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from .hashing import Hashed
from .inputs import DOMAIN, PADDING, UNKNOWN, InputSchema

if TYPE_CHECKING:  # rows become arrays without PyTorch, for a package that scores without it
    import torch

    from .batch import Batch

FIRST = UNKNOWN + 1  # the id of the first known value
FORMAT = 1
FEW = 512  # values looked up one by one; of more each different one once
Array = npt.NDArray[Any]
Column: TypeAlias = pa.ChunkedArray | pa.Array
Find = Callable[[Column, str], Array]  # a column and the name of its vocabulary -> positions, -1 for what is not known


@dataclass(frozen=True, kw_only=True)
class Field:
    """How one column becomes ids or a number.

    ``categorical``: ids of its vocabulary. ``bucket``: a number, id ``2 + (boundaries <= value)``.
    ``value``: a number, standardised with ``mean`` and ``scale``. ``bag``: a list of at most ``length`` values.
    """

    name: str
    kind: Literal["categorical", "bucket", "value", "bag"]
    value_type: Literal["string", "int", "float"]
    owner: str = "context"
    distribution: bool = False
    length: int = 0
    boundaries: tuple[float, ...] = ()
    mean: float = 0.0
    scale: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Encoder:
    """Fitted vocabularies and transforms.

    Attributes:
        fields: every input but the histories, in the order models see them.
        vocabularies: known values by vocabulary name; a value's id is its position plus two.
        hashed: vocabularies without a list, by name; a value's id is its bucket plus two.
        history: history field (a list column, most recent last) -> the vocabulary it shares with its candidate field.
        history_length: T; shorter histories are padded on the left, longer ones keep their most recent T.
        domains: names by domain id; any other name is the unknown domain, id M.
    """

    fields: tuple[Field, ...]
    vocabularies: Mapping[str, pa.Array]
    domains: tuple[str, ...]
    history: Mapping[str, str] = field(default_factory=dict)
    history_length: int = 0
    hashed: Mapping[str, Hashed] = field(default_factory=dict)

    @property
    def inputs(self) -> InputSchema:
        """What a model must know of its inputs."""
        embedded = [f for f in self.fields if f.kind in ("categorical", "bucket")]
        sizes = {name: FIRST + len(values) for name, values in self.vocabularies.items()}
        sizes |= {name: FIRST + one.buckets for name, one in self.hashed.items()}
        sizes |= {f.name: FIRST + len(f.boundaries) + 1 for f in self.fields if f.kind == "bucket"}
        return InputSchema(
            domains=len(self.domains),
            vocabularies=sizes,
            categorical=tuple(f.name for f in embedded),
            numerical=tuple(f.name for f in self.fields if f.kind == "value"),
            history=dict(self.history),
            history_length=self.history_length,
            bags={f.name: f.name for f in self.fields if f.kind == "bag"},
            distribution=tuple(f.name for f in embedded if f.distribution),
            owners={f.name: f.owner for f in self.fields},
        )

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns :meth:`transform` reads."""
        return ("domain", *(f.name for f in self.fields), *self.history)

    def transform(self, table: pa.Table) -> dict[str, Array]:
        """Encode N rows, as a request has them: values are looked up in tables made once of each vocabulary met.

        Such a table takes some 130 bytes a value, and saves going through the vocabulary at every call.

        Returns:
            ``categorical`` (N, F) int32, ``numerical`` (N, K) float32, ``domain`` (N,) int32, ``bag_<field>`` (N, L)
            int32 and ``history_<field>`` (N, T) int32, padded on the left.

        Raises:
            ValueError: a column is missing.
        """
        self._require(table.column_names)
        return self._transform({name: table.column(name) for name in self.columns}, len(table))

    def arrays(self, table: pa.Table, shared: pa.Table | None = None) -> dict[str, Array]:
        """What :meth:`transform` returns of rows some of whose columns are ``shared``: one row that stands for all.

        Raises:
            ValueError: a column is missing.
        """
        parts = [table] if shared is None else [table, shared]
        columns = {name: part.column(name) for part in parts for name in part.column_names}
        self._require(columns)
        return self._transform(columns, len(table))

    def rows(self, table: pa.Table) -> dict[str, Array]:
        """What :meth:`transform` returns, less the histories; for many rows at a time."""
        columns = {name: table.column(name) for name in (DOMAIN, *(f.name for f in self.fields))}
        return self._rows(columns, len(table), self._scan)

    def histories(self, name: str, lists: Column) -> Array:
        """Encode the lists of one history field: (N, T) int32; for many rows at a time."""
        return self._history(name, lists, self._scan)

    def _require(self, given: Collection[str]) -> None:
        if missing := [name for name in self.columns if name not in given]:
            raise ValueError(f"the rows lack the columns {', '.join(missing)}; they have {', '.join(given)}")

    def _transform(self, columns: Mapping[str, Column], rows: int) -> dict[str, Array]:
        """Columns of N = ``rows`` values, or of one that stands for all of them."""
        arrays = self._rows(columns, rows, self._look_up)
        for name in self.history:
            ids = self._history(name, columns[name], self._look_up)
            arrays[f"history_{name}"] = _spread(ids, rows)
        return arrays

    def _rows(self, columns: Mapping[str, Column], rows: int, find: Find) -> dict[str, Array]:
        embedded = [self._ids(f, columns[f.name], find) for f in self.fields if f.kind in ("categorical", "bucket")]
        values = [_standardised(f, columns[f.name]) for f in self.fields if f.kind == "value"]
        arrays: dict[str, Array] = {
            "categorical": _beside(embedded, rows, np.int32),
            "numerical": _beside(values, rows, np.float32),
            "domain": _spread(self._domain_ids(columns[DOMAIN], find), rows),
        }
        for f in self.fields:
            if f.kind == "bag":
                ids = _padded(columns[f.name], find, f.name, f.length, left=False)
                arrays[f"bag_{f.name}"] = _spread(ids, rows)
        return arrays

    def _history(self, name: str, lists: Column, find: Find) -> Array:
        return _padded(lists, find, self.history[name], self.history_length, left=True)

    def _domain_ids(self, names: Column, find: Find) -> Array:
        """Domain ids (N,) int32; a name that is not known, or null, is M."""
        ids = find(names, DOMAIN)
        return np.where(ids < 0, len(self.domains), ids).astype(np.int32)

    def batch(self, table: pa.Table, shared: pa.Table | None = None) -> Batch:
        """Encode rows straight into a batch, without labels (zeros).

        Args:
            table: N rows.
            shared: one row of further columns, which hold the same in each of the N: encoded once, and
                :attr:`Batch.repeated`.

        Raises:
            ValueError: a column is missing.
        """
        import torch

        from .batch import Batch

        arrays = {name: _tensor(array) for name, array in self.arrays(table, shared).items()}
        return Batch(
            categorical=arrays["categorical"],
            numerical=arrays["numerical"],
            history={name: arrays[f"history_{name}"] for name in self.history},
            bags={f.name: arrays[f"bag_{f.name}"] for f in self.fields if f.kind == "bag"},
            domain=arrays["domain"],
            label=torch.zeros(len(table)),
            repeated=frozenset(() if shared is None else shared.column_names),
        )

    def save(self, folder: Path) -> None:
        """Write ``encoder.json`` and ``vocabularies/<name>.parquet`` into an existing folder."""
        (folder / "vocabularies").mkdir()
        for name, values in self.vocabularies.items():
            pq.write_table(pa.table({"value": values}), folder / "vocabularies" / f"{name}.parquet")
        content = {
            "format": FORMAT,
            "fields": [dataclasses.asdict(f) for f in self.fields],
            "vocabularies": list(self.vocabularies),
            "history": dict(self.history),
            "history_length": self.history_length,
            "domains": list(self.domains),
            "hashed": {name: dataclasses.asdict(one) for name, one in self.hashed.items()},
        }
        (folder / "encoder.json").write_text(json.dumps(content, indent=1), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Encoder:
        """The inverse of :meth:`save`.

        Raises:
            ValueError: written by another version of this format.
        """
        content = json.loads((Path(folder) / "encoder.json").read_text(encoding="utf-8"))
        if content["format"] != FORMAT:
            raise ValueError(
                f"{folder} holds encoder format {content['format']}, this version reads {FORMAT}; encode again"
            )
        return cls(
            fields=tuple(Field(**{**raw, "boundaries": tuple(raw["boundaries"])}) for raw in content["fields"]),
            vocabularies={
                name: pq.read_table(Path(folder) / "vocabularies" / f"{name}.parquet").column("value").combine_chunks()
                for name in content["vocabularies"]
            },
            history=content["history"],
            history_length=content["history_length"],
            domains=tuple(content["domains"]),
            hashed={name: Hashed(**one) for name, one in content.get("hashed", {}).items()},
        )

    def _ids(self, f: Field, column: Column, find: Find) -> Array:
        if f.kind == "bucket":
            values = _floats(column)
            ids = np.searchsorted(np.asarray(f.boundaries), values, side="right") + FIRST
            return np.where(np.isnan(values), UNKNOWN, ids).astype(np.int32)
        return find(column, f.name) + np.int32(FIRST)

    def _scan(self, column: Column, name: str) -> Array:
        """Positions in a vocabulary: takes as long as the vocabulary and the column are together."""
        return self._hash(column, name) if name in self.hashed else _positions(column, self._known(name))

    def _hash(self, column: Column, name: str) -> Array:
        one = self.hashed[name]
        return one.places(column if column.type == one.type else _cast(column, one.type))

    def _look_up(self, column: Column, name: str) -> Array:
        """The same by a table made once: takes as long as the column is."""
        if name in self.hashed:
            return self._hash(column, name)
        values = self._known(name)
        if pa.types.is_floating(values.type) or len(column) == 0:  # a table of floats would not find NaN
            return _positions(column, values)
        if column.type != values.type:
            column = _cast(column, values.type)
        column = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
        table = self._table(name)
        if len(column) <= FEW:
            return np.array([table.get(value, -1) for value in column.to_pylist()], np.int32)
        distinct = column.dictionary_encode()
        found = [table.get(value, -1) for value in distinct.dictionary.to_pylist()]
        indices = distinct.indices.fill_null(len(found)) if distinct.null_count else distinct.indices
        places: Array = np.array([*found, -1], np.int32)[indices.to_numpy()]
        return places

    def _table(self, name: str) -> dict[Any, int]:
        if name not in self._tables:
            values = self._known(name).to_pylist()
            table = {values[i]: i for i in reversed(range(len(values)))}  # of equal values the first counts
            table.pop(None, None)
            self._tables[name] = table
        return self._tables[name]

    def _known(self, name: str) -> pa.Array:
        return self._domains if name == DOMAIN else self.vocabularies[name]

    @functools.cached_property
    def _domains(self) -> pa.Array:
        return pa.array(self.domains, pa.string())

    @functools.cached_property
    def _tables(self) -> dict[str, dict[Any, int]]:
        return {}


def _beside(columns: Sequence[Array], rows: int, kind: npt.DTypeLike) -> Array:
    """(rows, columns) of columns with a value for each row or one for all."""
    out: Array = np.empty((rows, len(columns)), kind)
    for number, values in enumerate(columns):
        out[:, number] = values
    return out


def _spread(values: Array, rows: int) -> Array:
    """Of one row that stands for many a view of that many rows."""
    return values if len(values) == rows else np.broadcast_to(values, (rows, *values.shape[1:]))


def _tensor(array: Array) -> torch.Tensor:
    import torch

    if len(array) > 1 and array.strides[0] == 0:  # of _spread: one row in memory here too
        return torch.from_numpy(array[:1].copy()).expand(array.shape)
    return torch.from_numpy(np.ascontiguousarray(array))


def _padded(lists: Column, find: Find, vocabulary: str, length: int, *, left: bool) -> Array:
    """(N, length) ids of N lists, cut to ``length`` (their last values if padded on the left) and padded."""
    lists = lists.combine_chunks() if isinstance(lists, pa.ChunkedArray) else lists
    if isinstance(lists, pa.ChunkedArray):  # no chunk at all
        lists = pa.array([], lists.type)
    out = np.full((len(lists), length), PADDING, np.int32)
    if len(lists) == 0 or pa.types.is_null(lists.type):
        return out
    lists = pc.fill_null(lists, pa.scalar([], lists.type)) if lists.null_count else lists
    counts = pc.list_value_length(lists).to_numpy(zero_copy_only=False).astype(np.int64)
    found = find(pc.list_flatten(lists), vocabulary) + np.int32(FIRST)
    starts = np.cumsum(counts) - counts
    row = np.repeat(np.arange(len(lists)), counts)
    place = np.arange(len(found)) - np.repeat(starts, counts)
    if left:
        place += np.repeat(length - counts, counts)
    kept = (place >= 0) & (place < length)
    out[row[kept], place[kept]] = found[kept]
    return out


def _positions(column: pa.ChunkedArray | pa.Array, values: pa.Array) -> Array:
    """The position of each value among the known ones, -1 where it is not among them or null: (N,) int32."""
    if len(column) == 0:
        return np.zeros(0, np.int32)
    if column.type != values.type:
        column = _cast(column, values.type)
    found = pc.index_in(column, value_set=values)
    found = pc.fill_null(found, -1)
    found = found.combine_chunks() if isinstance(found, pa.ChunkedArray) else found
    positions = np.asarray(found.to_numpy(zero_copy_only=False), dtype=np.int32).copy()
    if column.null_count:
        nulls = pc.is_null(column)
        nulls = nulls.combine_chunks() if isinstance(nulls, pa.ChunkedArray) else nulls
        positions[nulls.to_numpy(zero_copy_only=False)] = -1
    return positions


def _cast(column: pa.ChunkedArray | pa.Array, to: pa.DataType) -> pa.ChunkedArray | pa.Array:
    """To the vocabulary's type; a value that cannot be is null, hence unknown."""
    if pa.types.is_null(column.type):
        return pa.nulls(len(column), to)
    if pa.types.is_floating(column.type) and pa.types.is_integer(to):  # whole numbers that came through pandas
        whole = pc.equal(column, pc.floor(column))
        return pc.if_else(whole, column, pa.scalar(None, column.type)).cast(to, safe=False)
    try:
        return column.cast(to)
    except pa.ArrowInvalid:
        number = float if pa.types.is_floating(to) else _whole
        return pa.array([_or_none(number, value) for value in column.to_pylist()], to)


def _or_none(number: Callable[[Any], float], value: Any) -> float | None:
    try:
        return number(value)
    except (TypeError, ValueError):
        return None


def _whole(value: Any) -> int:
    found = int(value)
    if not -(2**63) <= found < 2**63:
        raise ValueError
    return found


def _floats(column: pa.ChunkedArray) -> Array:
    """Float64 values, NaN for nulls: (N,)."""
    return np.asarray(column.cast(pa.float64()).to_numpy(zero_copy_only=False), dtype=np.float64)


def _standardised(f: Field, column: pa.ChunkedArray) -> Array:
    values = (_floats(column) - f.mean) / f.scale
    return np.nan_to_num(values, nan=0.0).astype(np.float32)
