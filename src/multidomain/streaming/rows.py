"""The rows of a stream: those of the training frame, which are what a request would be given.

A row holds what was known when the impression was shown: the columns that the encoder reads, as the feature stage
delivers them and as the service logs them, and what training needs beside: ``impression_id``, ``user``, ``group`` and
``label``.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..encoder import Encoder
from ..errors import DataError
from ..packaging.rows import UNFIT, columns, misfits, shown
from .source import Bad, Position

OWN = {"impression_id": pa.int64(), "user": pa.string(), "group": pa.string(), "label": pa.int8()}
SHOWN = 2000  # characters kept of a bad row
TOLD = 1024  # bad rows made into Python objects together


def wanted(encoder: Encoder) -> pa.Schema:
    """The columns of a stream that this encoder reads, and their types."""
    return pa.schema([*OWN.items(), *((name, kind) for name, kind in columns(encoder).items() if name not in OWN)])


def require(names: Sequence[str], schema: pa.Schema, where: str) -> None:
    """See that every column that is wanted is among these names, once.

    Raises:
        DataError: one is missing or there twice; the message names where and which.
    """
    twice = [name for name in schema.names if names.count(name) > 1]
    if twice:
        raise DataError(f"{where} has the column '{twice[0]}' more than once. Write the file again with one of them.")
    missing = [name for name in schema.names if name not in names]
    if missing:
        listed = ", ".join(f"'{name}'" for name in missing)
        raise DataError(
            f"{where} lacks the column{'s' if len(missing) > 1 else ''} {listed}. The rows of a stream are those of "
            f"the training frame: {', '.join(schema.names)}. Write the file again with all of them, under a "
            "later name if others have come since."
        )


def typed(table: pa.Table, schema: pa.Schema, where: str) -> pa.Table:
    """The columns that are wanted, in their types.

    Raises:
        DataError: a column is missing, there twice, or holds values of another type; the message names where and which,
            how many values those are, and one of them.
    """
    require(table.column_names, schema, where)
    made = []
    for name, kind in zip(schema.names, schema.types, strict=True):
        column = table.column(name)
        try:
            made.append(column.cast(kind))
        except UNFIT as error:
            how_many, first = misfits(partial(_cast, column, kind), len(column))
            such = f"; {how_many} rows do not fit, such as {_shown(column, first)}" if first is not None else ""
            raise DataError(
                f"{where}: column '{name}' must hold {kind}, it holds {column.type}{such}: {str(error).rstrip('.')}. "
                "Write the file again with that type."
            ) from error
    return pa.table(made, schema=schema)


def _cast(column: pa.ChunkedArray, kind: pa.DataType, start: int, stop: int) -> pa.ChunkedArray:
    return column.slice(start, stop - start).cast(kind)


def _shown(column: pa.ChunkedArray, row: int) -> str:
    value = column.slice(row, 1)
    if pa.types.is_string(value.type):  # whose bytes may be no text
        value = value.cast(pa.binary())
    found = value[0].as_py()
    return shown(found.decode("utf-8", "replace") if pa.types.is_string(column.type) else found)


def sorted_out(
    table: pa.Table, places: np.ndarray, positions: Sequence[Position]
) -> tuple[pa.Table, np.ndarray, list[Bad]]:
    """The rows that can be learnt, their places, and the others.

    Args:
        table: N rows with the columns of :func:`wanted`.
        places: (N,) of each in its chunk.
        positions: by place.
    """
    reasons: dict[int, str] = {}
    checks = [
        ("impression_id is missing", pc.is_null(table.column("impression_id"))),
        ("label is missing", pc.is_null(table.column("label"))),
        ("label is neither 0 nor 1", pc.invert(pc.is_in(table.column("label"), pa.array([None, 0, 1], pa.int8())))),
    ]
    for name, kind in zip(table.schema.names, table.schema.types, strict=True):
        if pa.types.is_floating(kind):
            checks.append((f"{name} is infinite", pc.fill_null(pc.is_inf(table.column(name)), False)))
    damaged = [name for name in table.schema.names if not _text(table.column(name))]
    for name in damaged:
        found = [not _text(table.column(name).take([row])) for row in range(len(table))]
        checks.append((f"{name} is no UTF-8 text", pa.chunked_array([found], pa.bool_())))
    for reason, found in checks:
        if pc.any(found).as_py():
            for row in np.flatnonzero(found.to_numpy()).tolist():
                reasons.setdefault(row, reason)
    if not reasons:
        return table, places, []
    rows = sorted(reasons)
    told = table.take(rows)
    for name in damaged:
        place, kind = told.schema.get_field_index(name), told.schema.field(name).type
        raw = pa.list_(pa.binary()) if pa.types.is_list(kind) else pa.binary()
        told = told.set_column(place, name, told.column(name).cast(raw))
    pieces = told.to_batches(max_chunksize=TOLD)
    texts = [json.dumps(row, default=str)[:SHOWN] for piece in pieces for row in piece.to_pylist()]
    bad = [
        Bad(int(places[row]), positions[int(places[row])], reasons[row], text)
        for row, text in zip(rows, texts, strict=True)
    ]
    good = np.setdiff1d(np.arange(len(table)), rows)
    return table.take(pa.array(good)), places[good], bad


def _text(column: pa.ChunkedArray) -> bool:
    """Whether its strings are text, which a file or an entry may only say they are."""
    try:
        column.validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True


def arrays(encoder: Encoder, table: pa.Table) -> dict[str, np.ndarray]:
    """What the buffer holds of N rows: those of :meth:`Encoder.transform`, ``label`` and ``impression_id``."""
    made: dict[str, Any] = {name: np.ascontiguousarray(a) for name, a in encoder.transform(table).items()}
    made["label"] = table.column("label").to_numpy().astype(np.float32)
    made["impression_id"] = table.column("impression_id").to_numpy().astype(np.int64)
    return made
