"""Encoded splits on disk: memory-mapped arrays, written once by the encoder and read in whole batches.

Layout of one encoded variant (N rows of a split, F categorical, K numerical fields, L values of a bag, S user
states, T history length)::

    inputs.json                         InputSchema
    domains.json                        names of the domains by id
    <split>/categorical.npy  (N, F) int32       <split>/numerical.npy  (N, K) float32
    <split>/domain.npy       (N,)   int32       <split>/label.npy      (N,)   float32
    <split>/bag_<field>.npy  (N, L) int32       <split>/state.npy      (N,)   int32, only with a history
    <split>/weight.npy       (N,)   float32, only where the schema names a column of weights
    <split>/rows.parquet     impression_id, group, domain; of a simulated log true_ and blind_probability
    states/<field>.npy       (S, T) int32       left-padded with 0, row 0 is the empty history

A history is stored once per user state, not once per impression: ``state`` is the row in every ``states`` array.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import math
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from .batch import Batch
from .errors import DataError
from .inputs import InputSchema
from .schema import SPLITS

Shape = tuple[int | None, ...]
_ROW_COLUMNS = {"impression_id": pa.int64(), "group": pa.string(), "domain": pa.string()}
_TRUTHS = ("true_probability", "blind_probability")  # of a simulated log: what evaluation compares with, never an input
_MAPPED = 512 << 20  # bytes written before the arrays are mapped anew
_WRITING = "writing the encoded tensors"
_DIGEST_BLOCK, _DIGEST_BLOCKS = 1 << 16, 256


def require_space(folder: Path, needed: int, what: str) -> None:
    """Raises a DataError when the disk that holds `folder` has less than `needed` bytes left for `what`."""
    if shutil.disk_usage(folder).free < needed:
        raise disk_full(folder, needed, what)


def disk_full(folder: Path, needed: int, what: str) -> DataError:
    """The one message for a full disk, met before or while writing."""
    return DataError(
        f"The disk is full: {what} needs {needed:,} bytes in {folder}, {shutil.disk_usage(folder).free:,} are free "
        "there. Free some space, or move the data folder to a larger disk."
    )


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


class EncodedSplit:
    """One split of an encoded variant, read from memory-mapped arrays.

    Attributes:
        folder, split: where it was read from.
        inputs: the inputs of the variant.
        domains: names of the domains by id.
        rows: N.
        domain: (N,) int32.
        label: (N,) float32.
        weight: (N,) float32, as the log has it, unchecked; or None.

    Raises:
        DataError: a file is missing or damaged, or its shape is not the one inputs.json asks for.
    """

    def __init__(self, folder: Path | str, split: str) -> None:
        self.folder, self.split = Path(folder), split
        self.inputs = InputSchema.from_dict(self._json("inputs.json"))
        self.domains: list[str] = self._json("domains.json")
        self.label = self._array(f"{split}/label", None)
        self.rows = len(self.label)
        self.domain = self._array(f"{split}/domain", (self.rows,))
        weighted = (self.folder / f"{split}/weight.npy").exists()
        self.weight = self._array(f"{split}/weight", (self.rows,)) if weighted else None
        self._categorical = self._array(f"{split}/categorical", (self.rows, len(self.inputs.categorical)))
        self._numerical = self._array(f"{split}/numerical", (self.rows, len(self.inputs.numerical)))
        self._bags = {name: self._array(f"{split}/bag_{name}", (self.rows, None)) for name in self.inputs.bags}
        self._state = self._array(f"{split}/state", (self.rows,)) if self.inputs.history else None
        self._histories = {
            name: self._array(f"states/{name}", (None, self.inputs.history_length)) for name in self.inputs.history
        }

    def __len__(self) -> int:
        return self.rows

    def __repr__(self) -> str:
        return f"EncodedSplit('{self.folder}', '{self.split}'): {self.rows:,} rows"

    @property
    def bytes(self) -> int:
        """Bytes of all arrays, the shared histories included."""
        return sum(array.nbytes for array in self.arrays().values())

    def batch(self, rows: np.ndarray | slice) -> Batch:
        """The tensors of these rows, in this order, on the CPU and detached from the files."""
        history = {}
        if self._state is not None:
            states = _take(self._state, rows)
            history = {name: torch.from_numpy(_take(values, states)) for name, values in self._histories.items()}
        return Batch(
            categorical=torch.from_numpy(_take(self._categorical, rows)),
            numerical=torch.from_numpy(_take(self._numerical, rows)),
            history=history,
            bags={name: torch.from_numpy(_take(values, rows)) for name, values in self._bags.items()},
            domain=torch.from_numpy(_take(self.domain, rows)),
            label=torch.from_numpy(_take(self.label, rows)),
        )

    def digest(self) -> str:
        """SHA-256 over inputs, shapes and contents; of an array above 16 MiB, over 256 blocks spread evenly over it."""
        total = hashlib.sha256(json.dumps([self.inputs.to_dict(), self.domains], sort_keys=True).encode())
        for name, array in self.arrays().items():
            total.update(f"{name} {array.dtype} {array.shape}".encode())
            for block in _sample(array):
                total.update(block)
        return total.hexdigest()

    def arrays(self) -> dict[str, np.ndarray]:
        """Every array by the name of its file, memory-mapped; ``states/<field>`` are the histories that rows share."""
        arrays = {
            "label": self.label,
            "domain": self.domain,
            "categorical": self._categorical,
            "numerical": self._numerical,
            **{f"bag_{name}": values for name, values in self._bags.items()},
            **{f"states/{name}": values for name, values in self._histories.items()},
        }
        for name, values in (("state", self._state), ("weight", self.weight)):
            if values is not None:
                arrays[name] = values
        return arrays

    def _json(self, name: str) -> Any:
        try:
            return json.loads((self.folder / name).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise _unreadable(self.folder / name, error) from error

    def _array(self, name: str, shape: Shape | None) -> np.ndarray:
        path = self.folder / f"{name}.npy"
        try:
            array = _open_array(path)
        except (OSError, ValueError, EOFError) as error:
            raise _unreadable(path, error) from error
        if shape is not None and not _fits(array.shape, shape):
            wanted = tuple("any" if extent is None else extent for extent in shape)
            raise _unreadable(path, f"shape {array.shape}, expected {wanted}")
        return array


def fingerprint(folder: Path | str) -> str:
    """One digest of all splits of an encoded variant; see :meth:`EncodedSplit.digest`."""
    return hashlib.sha256("".join(EncodedSplit(folder, split).digest() for split in SPLITS).encode()).hexdigest()[:24]


def _unreadable(path: Path, why: object) -> DataError:
    return DataError(f"Cannot read the encoded tensors {path}: {why}. Run the encode stage again.")


def _open_array(path: Path) -> np.ndarray:
    """The array in `path`, memory-mapped where it has elements (an empty file part cannot be mapped)."""
    with path.open("rb") as file:
        version = np.lib.format.read_magic(file)
        if version != (1, 0):
            raise ValueError(f"npy version {version}, expected (1, 0)")
        shape, _, _ = np.lib.format.read_array_header_1_0(file)
    array: np.ndarray = np.load(path, mmap_mode="r" if math.prod(shape) else None, allow_pickle=False)
    return array


def _fits(shape: tuple[int, ...], wanted: Shape) -> bool:
    pairs = zip(shape, wanted, strict=False)
    return len(shape) == len(wanted) and all(want is None or have == want for have, want in pairs)


def _take(array: np.ndarray, rows: np.ndarray | slice) -> np.ndarray:
    """A copy of these rows. ``take`` gathers whole rows, without the interpreter's lock."""
    if isinstance(rows, slice):
        return np.array(array[rows])
    return np.asarray(array).take(rows, axis=0)


def _sample(array: np.ndarray) -> list[bytes]:
    if not array.size:
        return []
    flat = np.asarray(array).reshape(-1).view(np.uint8)
    if flat.size <= _DIGEST_BLOCK * _DIGEST_BLOCKS:
        return [flat.tobytes()]
    starts = np.linspace(0, flat.size - _DIGEST_BLOCK, _DIGEST_BLOCKS).astype(np.int64)
    return [flat[start : start + _DIGEST_BLOCK].tobytes() for start in starts]


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
