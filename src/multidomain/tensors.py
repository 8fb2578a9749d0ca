"""Encoded splits on disk: memory-mapped arrays, written once (:mod:`.tensor_writer`) and read in whole batches.

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

import hashlib
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .batch import Batch
from .errors import DataError
from .inputs import InputSchema
from .schema import SPLITS

Shape = tuple[int | None, ...]
_DIGEST_BLOCK, _DIGEST_BLOCKS = 1 << 16, 256


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
