"""The encoder: from rows as the feature stage delivers them to the arrays a model reads.

Fitted on the training split alone, stored as JSON and Parquet, and carried along by every packaged model, so
that training and serving encode with the same code and the same vocabularies. Ids are field-local:
0 is padding, 1 what training never saw (nulls included), the rest known values, most frequent first.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch

from .batch import Batch
from .inputs import PADDING, UNKNOWN, InputSchema

FIRST = UNKNOWN + 1  # the id of the first known value
FORMAT = 1
Array = npt.NDArray[Any]


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
        history: history field (a list column, most recent last) -> the vocabulary it shares with its candidate field.
        history_length: T; shorter histories are padded on the left, longer ones keep their most recent T.
        domains: names by domain id; any other name is the unknown domain, id M.
    """

    fields: tuple[Field, ...]
    vocabularies: Mapping[str, pa.Array]
    domains: tuple[str, ...]
    history: Mapping[str, str] = field(default_factory=dict)
    history_length: int = 0

    @property
    def inputs(self) -> InputSchema:
        """What a model must know of its inputs."""
        embedded = [f for f in self.fields if f.kind in ("categorical", "bucket")]
        sizes = {name: FIRST + len(values) for name, values in self.vocabularies.items()}
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
        """Encode N rows.

        Returns:
            ``categorical`` (N, F) int32, ``numerical`` (N, K) float32, ``domain`` (N,) int32, ``bag_<field>`` (N, L)
            int32 and ``history_<field>`` (N, T) int32, padded on the left.

        Raises:
            ValueError: a column is missing.
        """
        missing = [name for name in self.columns if name not in table.column_names]
        if missing:
            raise ValueError(
                f"the rows lack the columns {', '.join(missing)}; they have {', '.join(table.column_names)}"
            )
        arrays = self.rows(table)
        for name in self.history:
            arrays[f"history_{name}"] = self.histories(name, table.column(name))
        return arrays

    def rows(self, table: pa.Table) -> dict[str, Array]:
        """What :meth:`transform` returns, less the histories."""
        embedded = [self._ids(f, table.column(f.name)) for f in self.fields if f.kind in ("categorical", "bucket")]
        values = [_standardised(f, table.column(f.name)) for f in self.fields if f.kind == "value"]
        arrays: dict[str, Array] = {
            "categorical": np.stack(embedded, axis=1) if embedded else np.zeros((len(table), 0), np.int32),
            "numerical": np.stack(values, axis=1) if values else np.zeros((len(table), 0), np.float32),
            "domain": self.domain_ids(table.column("domain")),
        }
        for f in self.fields:
            if f.kind == "bag":
                arrays[f"bag_{f.name}"] = self._lists(
                    self.vocabularies[f.name], table.column(f.name), f.length, left=False
                )
        return arrays

    def histories(self, name: str, lists: pa.ChunkedArray | pa.Array) -> Array:
        """Encode the lists of one history field: (N, T) int32."""
        return self._lists(self.vocabularies[self.history[name]], lists, self.history_length, left=True)

    def domain_ids(self, names: pa.ChunkedArray | pa.Array) -> Array:
        """Domain ids (N,) int32; a name that is not known, or null, is M."""
        ids = _positions(names, pa.array(self.domains, pa.string()))
        return np.where(ids < 0, len(self.domains), ids).astype(np.int32)

    def batch(self, table: pa.Table) -> Batch:
        """Encode rows straight into a batch, without labels (zeros)."""
        arrays = {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in self.transform(table).items()}
        return Batch(
            categorical=arrays["categorical"],
            numerical=arrays["numerical"],
            history={name: arrays[f"history_{name}"] for name in self.history},
            bags={f.name: arrays[f"bag_{f.name}"] for f in self.fields if f.kind == "bag"},
            domain=arrays["domain"],
            label=torch.zeros(len(table)),
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
        )

    def _ids(self, f: Field, column: pa.ChunkedArray) -> Array:
        if f.kind == "bucket":
            values = _floats(column)
            ids = np.searchsorted(np.asarray(f.boundaries), values, side="right") + FIRST
            return np.where(np.isnan(values), UNKNOWN, ids).astype(np.int32)
        return _positions(column, self.vocabularies[f.name]) + np.int32(FIRST)

    def _lists(self, vocabulary: pa.Array, lists: pa.ChunkedArray | pa.Array, length: int, *, left: bool) -> Array:
        """(N, length) ids of N lists, cut to ``length`` (their last values if padded on the left) and padded."""
        lists = lists.combine_chunks() if isinstance(lists, pa.ChunkedArray) else lists
        if isinstance(lists, pa.ChunkedArray):  # no chunk at all
            lists = pa.array([], lists.type)
        out = np.full((len(lists), length), PADDING, np.int32)
        if len(lists) == 0 or pa.types.is_null(lists.type):
            return out
        lists = pc.fill_null(lists, pa.scalar([], lists.type)) if lists.null_count else lists
        counts = pc.list_value_length(lists).to_numpy(zero_copy_only=False).astype(np.int64)
        ids = _positions(pc.list_flatten(lists), vocabulary) + np.int32(FIRST)
        starts = np.cumsum(counts) - counts
        row = np.repeat(np.arange(len(lists)), counts)
        place = np.arange(len(ids)) - np.repeat(starts, counts)
        if left:
            place += np.repeat(length - counts, counts)
        kept = (place >= 0) & (place < length)
        out[row[kept], place[kept]] = ids[kept]
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
        return pa.array([_number(value) for value in column.to_pylist()], to)


def _number(value: Any) -> int | None:
    try:
        return int(value)
    except (TypeError, ValueError):
        return None


def _floats(column: pa.ChunkedArray) -> Array:
    """Float64 values, NaN for nulls: (N,)."""
    return np.asarray(column.cast(pa.float64()).to_numpy(zero_copy_only=False), dtype=np.float64)


def _standardised(f: Field, column: pa.ChunkedArray) -> Array:
    values = (_floats(column) - f.mean) / f.scale
    return np.nan_to_num(values, nan=0.0).astype(np.float32)
