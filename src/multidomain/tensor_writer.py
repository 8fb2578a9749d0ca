"""Writes the encoded tensors of :mod:`.tensors`, whose layout is described there. Needs no PyTorch."""

from __future__ import annotations

import contextlib
import errno
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from .disk import disk_full, require_space
from .inputs import InputSchema

_ROW_COLUMNS = {"impression_id": pa.int64(), "group": pa.string(), "domain": pa.string()}
_TRUTHS = ("true_probability", "blind_probability")  # of a simulated log: what evaluation compares with, never an input
_MAPPED = 512 << 20  # bytes written before the arrays are mapped anew
_WRITING = "writing the encoded tensors"


class TensorWriter:
    """Writes the splits of an encoded variant chunk by chunk, into a folder that the caller renames when all is well.

    Every file is given its blocks when it is created: a page written through a memory map of a full disk would
    otherwise end the process without a word.

    >>> with TensorWriter(folder, inputs, rows={"train": 3}, states=2) as writer:
    ...     writer.write("train", arrays, label=label, state=state, rows=table)
    ...     writer.write_states("item_id", np.array([1]), lists)

    Args:
        folder: an existing folder.
        inputs: the inputs of the variant; only fields named there are written.
        rows: split -> N.
        states: S, the empty history at row 0 included; ignored without a history.

    Raises:
        DataError: the disk has too little space, before the first row or later: how many bytes are needed, and where.
        ValueError: too many or too few rows, another shape, ids beyond int32.
    """

    def __init__(self, folder: Path | str, inputs: InputSchema, *, rows: Mapping[str, int], states: int = 1) -> None:
        self.folder, self.inputs, self.rows = Path(folder), inputs, dict(rows)
        self._written, self._unseen = dict.fromkeys(rows, 0), 0
        self._tables: dict[str, pq.ParquetWriter] = {}
        shapes = _shapes(inputs, rows, states)
        self.needed = sum(math.prod(shape) * np.dtype(dtype).itemsize for shape, dtype in shapes.values())
        require_space(self.folder, self.needed, _WRITING)
        with self._explained():
            self._arrays = {name: _create(self.folder, name, shape, dtype) for name, (shape, dtype) in shapes.items()}

    def write(
        self,
        split: str,
        arrays: Mapping[str, Any],
        *,
        label: Any,
        state: Any | None = None,
        rows: pa.Table | None = None,
        weight: Any | None = None,
    ) -> None:
        """Appends the next n rows of a split.

        Args:
            split: one of the splits announced.
            arrays: ``categorical`` (n, F), ``numerical`` (n, K), ``domain`` (n,) and ``bag_<field>`` (n, L); others are
                passed over.
            label: (n,) 0 or 1.
            state: (n,) row of the histories, when there are any.
            weight: (n,) how much a row counts in training, for every row of a split or for none.
            rows: n rows with ``impression_id``, ``group`` and ``domain`` (and the truth) for ``rows.parquet``.
        """
        values = {**arrays, "label": label} if state is None else {**arrays, "label": label, "state": state}
        start, stop = self._written[split], self._written[split] + len(label)
        if stop > self.rows[split]:
            raise ValueError(f"{split} was announced with {self.rows[split]} rows, got {stop}")
        for name in self._names():
            if name not in values:
                raise ValueError(f"'{name}' is missing; got {', '.join(values)}")
            self._fill(split, name, slice(start, stop), np.asarray(values[name]))
        if weight is not None:
            self._fill(split, "weight", slice(start, stop), np.asarray(weight, dtype=np.float32), np.float32)
        if rows is not None:
            self._write_rows(split, rows)
        self._written[split] = stop
        self._unseen += sum(np.asarray(value).nbytes for value in values.values())
        if self._unseen > _MAPPED:
            self._map_anew()

    def write_states(self, field: str, states: np.ndarray, values: Any) -> None:
        """Sets the histories (n, T) of these user states (n,), in any order and any number of times."""
        _put(self._arrays[f"states/{field}"], states, np.asarray(values), f"states/{field}")

    def close(self) -> None:
        """Completes the files.

        Raises:
            ValueError: a split got fewer rows than announced.
        """
        for split, rows in self.rows.items():
            if self._written[split] != rows:
                raise ValueError(f"{split} was announced with {rows} rows, got {self._written[split]}")
            if rows == 0:
                self._write_empty(split)
        with self._explained():
            for array in self._arrays.values():
                if isinstance(array, np.memmap):
                    array.flush()
            for table in self._tables.values():
                table.close()
        self._arrays, self._tables = {}, {}

    def __enter__(self) -> TensorWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
            return
        for table in self._tables.values():
            with contextlib.suppress(OSError):  # the first failure is already on its way up
                table.close()
        self._arrays, self._tables = {}, {}

    def _map_anew(self) -> None:
        """Pages that were written stay in a process's memory as long as their map is open."""
        for key, array in self._arrays.items():
            if isinstance(array, np.memmap):
                array.flush()
                self._arrays[key] = np.load(self.folder / f"{key}.npy", mmap_mode="r+")
        self._unseen = 0

    def _names(self) -> list[str]:
        names = ["categorical", "numerical", "domain", "label", *(f"bag_{field}" for field in self.inputs.bags)]
        return [*names, "state"] if self.inputs.history else names

    def _fill(self, split: str, name: str, where: slice, values: np.ndarray, kind: Any = np.int32) -> None:
        key = f"{split}/{name}"
        if key not in self._arrays:  # a bag, whose length is known with the first rows, or weights
            shape = (self.rows[split], *values.shape[1:])
            require_space(self.folder, math.prod(shape) * 4, _WRITING)
            with self._explained():
                self._arrays[key] = _create(self.folder, key, shape, kind)
        _put(self._arrays[key], where, values, key)

    def _write_rows(self, split: str, rows: pa.Table) -> None:
        kept = rows.select([name for name in (*_ROW_COLUMNS, *_TRUTHS) if name in rows.column_names])
        with self._explained():
            if split not in self._tables:
                self._tables[split] = pq.ParquetWriter(self.folder / split / "rows.parquet", kept.schema)
            self._tables[split].write_table(kept)

    def _write_empty(self, split: str) -> None:
        for field in self.inputs.bags:
            if f"{split}/bag_{field}" not in self._arrays:
                self._fill(split, f"bag_{field}", slice(0, 0), np.zeros((0, 1), np.int32))
        if split not in self._tables:
            self._write_rows(split, pa.schema(_ROW_COLUMNS.items()).empty_table())

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise disk_full(self.folder, self.needed, _WRITING) from error
            raise


def _shapes(inputs: InputSchema, rows: Mapping[str, int], states: int) -> dict[str, tuple[tuple[int, ...], Any]]:
    """Name -> shape and type of every array but the bags, whose length comes with their first rows."""
    shapes: dict[str, tuple[tuple[int, ...], Any]] = {}
    for split, count in rows.items():
        shapes[f"{split}/categorical"] = ((count, len(inputs.categorical)), np.int32)
        shapes[f"{split}/numerical"] = ((count, len(inputs.numerical)), np.float32)
        shapes[f"{split}/domain"] = ((count,), np.int32)
        shapes[f"{split}/label"] = ((count,), np.float32)
        if inputs.history:
            shapes[f"{split}/state"] = ((count,), np.int32)
    return shapes | {f"states/{field}": ((states, inputs.history_length), np.int32) for field in inputs.history}


def _create(folder: Path, name: str, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """A new array of zeros whose bytes are already on the disk; one without elements is not mapped."""
    path = folder / f"{name}.npy"
    path.parent.mkdir(parents=True, exist_ok=True)
    if not math.prod(shape):
        np.save(path, np.zeros(shape, dtype))
        return np.zeros(shape, dtype)
    array: np.ndarray = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape, version=(1, 0))
    _reserve(path)
    return array


def _reserve(path: Path) -> None:
    """Gives every byte of the file its place on the disk, or raises the OSError of a full one."""
    size = path.stat().st_size
    with path.open("r+b") as file:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size)
            return
        start = size - np.load(path, mmap_mode="r").nbytes
        file.seek(start)
        for offset in range(start, size, 1 << 24):
            file.write(bytes(min(1 << 24, size - offset)))


def _put(array: np.ndarray, where: Any, values: np.ndarray, name: str) -> None:
    """``array[where] = values`` that neither broadcasts nor wraps around."""
    target = array[where]
    if target.shape != values.shape:
        raise ValueError(f"{name} takes values of shape {target.shape}, got {values.shape}")
    if array.dtype.kind == "i" and values.size and values.dtype != array.dtype:
        limits = np.iinfo(array.dtype)
        if values.min() < limits.min or values.max() > limits.max:
            raise ValueError(f"{name} holds {array.dtype}, got values from {values.min()} to {values.max()}")
    array[where] = values
