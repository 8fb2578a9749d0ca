"""All that a stream must not lose: weights, optimizers, the buffer, where in the stream it is, what it counted.

A checkpoint is a folder ``rows-000000200000-00000001`` of safetensors, Parquet and JSON, there whole or not at all. No
state of a random generator is kept: every draw is seeded from the seed of the run and the number of the step.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from ..encoder import Encoder
from ..errors import ConfigurationError, DataError
from ..training.checkpoint_folder import CheckpointFolder
from .source import Position

logger = logging.getLogger(__name__)
Tensors = dict[str, torch.Tensor]


@dataclass
class Progress:
    """How far a stream has come.

    Attributes:
        rows: that were scored: every good row delivered.
        steps: batches learnt.
        learnt: rows learnt; the others wait in the buffer.
        rejected: rows that could not be learnt.
        position: in the stream, of the last row; None before the first.
        packaged: rows at which the last version was packaged.
        entered, left: values that have come into and gone from the vocabularies.
        window: number of the open window of prequential metrics, and rows before it.
        saves: checkpoints written.
    """

    rows: int = 0
    steps: int = 0
    learnt: int = 0
    rejected: int = 0
    position: Position | None = None
    packaged: int = 0
    entered: int = 0
    left: int = 0
    window: tuple[int, int] = (1, 0)
    saves: int = 0


@dataclass
class Saved:
    """What a checkpoint holds.

    Attributes:
        progress: the counts.
        encoder: of now.
        weights, optimizers: as :mod:`multidomain.training.checkpoint` keeps them.
        waiting: the rows of the buffer, encoded, in their places.
        window: rows of the open window of prequential metrics.
        seen: vocabulary -> the row of the stream that held each id last.
        candidates: vocabulary, value, count, last: values that may yet enter.
        recent: the rows since the last version as they came, with their scores; None where there are none.
        logit_offset: of the model.
    """

    progress: Progress
    encoder: Encoder
    weights: Tensors
    optimizers: Tensors
    waiting: Mapping[str, np.ndarray]
    window: Mapping[str, np.ndarray]
    seen: Mapping[str, np.ndarray]
    candidates: Mapping[str, Mapping[Any, tuple[int, int]]] = field(default_factory=dict)
    recent: pa.Table | None = None
    logit_offset: float = 0.0


class StreamCheckpoints(CheckpointFolder):
    """The checkpoints of one stream; only the newest is kept, and none is removed at the end.

    Args:
        folder: made when needed; nobody else's.
        identity: what a checkpoint must agree with, part by part.
    """

    def __init__(self, folder: Path, identity: Mapping[str, Any]) -> None:
        super().__init__(folder, "rows")
        self.identity = json.loads(json.dumps(dict(identity), sort_keys=True, default=str))

    def save(self, saved: Saved) -> None:
        """Write one.

        Raises:
            DataError: the disk is full.
        """
        parts = {
            "model": saved.weights,
            "optimizers": saved.optimizers,
            "buffer": _tensors(saved.waiting),
            "window": _tensors(saved.window),
            "seen": _tensors(saved.seen),
        }
        needed = sum(tensor.nbytes for part in parts.values() for tensor in part.values())
        needed += 2 * (saved.recent.nbytes if saved.recent is not None else 0)

        def fill(folder: Path) -> None:
            for name, tensors in parts.items():
                save_file(tensors, folder / f"{name}.safetensors")
            (folder / "encoder").mkdir()
            saved.encoder.save(folder / "encoder")
            for name, counts in saved.candidates.items():
                (folder / "candidates").mkdir(exist_ok=True)
                pq.write_table(_counted(counts, saved.encoder, name), folder / "candidates" / f"{name}.parquet")
            if saved.recent is not None:
                pq.write_table(saved.recent, folder / "recent.parquet")
            numbers = {"progress": vars(saved.progress), "logit_offset": saved.logit_offset, "identity": self.identity}
            (folder / "state.json").write_text(json.dumps(numbers, indent=1), encoding="utf-8")

        self.write(f"rows-{saved.progress.rows:012d}-{saved.progress.saves:08d}", fill, needed=needed)

    def restore(self) -> Saved | None:
        """The newest checkpoint; None where there is none.

        Raises:
            ConfigurationError: it was made with other settings, which the message names.
            DataError: it is damaged.
        """
        self.sweep()
        found = self.newest_first()
        if not found:
            return None
        path = found[0]
        try:
            raw = json.loads((path / "state.json").read_text(encoding="utf-8"))
            self._require_same(path, raw["identity"])
            return self._read(path, raw)
        except (OSError, ValueError, KeyError, TypeError, SafetensorError, pa.ArrowException) as error:
            raise DataError(
                f"The checkpoint {path} cannot be read: {error}. Without it nobody knows which rows were learnt: put "
                "it back, or remove the folder to begin the stream anew."
            ) from error

    def _require_same(self, path: Path, identity: Mapping[str, Any]) -> None:
        differing = [
            f"{part}: {identity.get(part)!r} then, {now!r} now"
            for part, now in self.identity.items()
            if identity.get(part) != now
        ]
        if differing:
            raise ConfigurationError(
                f"The stream went on with other settings up to {path}. {'; '.join(differing)}. Use those of then, or "
                f"remove {path.parent} to begin anew."
            )

    def _read(self, path: Path, raw: Mapping[str, Any]) -> Saved:
        encoder, recent = Encoder.load(path / "encoder"), path / "recent.parquet"
        progress = Progress(**raw["progress"])
        progress.window = (progress.window[0], progress.window[1])
        logger.info("The stream goes on after %s rows, from %s", f"{progress.rows:,}", path)
        return Saved(
            progress=progress,
            encoder=encoder,
            weights=load_file(path / "model.safetensors"),
            optimizers=load_file(path / "optimizers.safetensors"),
            waiting=_arrays(path / "buffer.safetensors"),
            window=_arrays(path / "window.safetensors"),
            seen=_arrays(path / "seen.safetensors"),
            candidates={
                file.stem: {one["value"]: (one["count"], one["last"]) for one in pq.read_table(file).to_pylist()}
                for file in sorted((path / "candidates").glob("*.parquet"))
            },
            recent=pq.read_table(recent) if recent.exists() else None,
            logit_offset=raw["logit_offset"],
        )


def _tensors(arrays: Mapping[str, np.ndarray]) -> Tensors:
    return {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()}


def _arrays(path: Path) -> dict[str, np.ndarray]:
    return {name: tensor.numpy() for name, tensor in load_file(path).items()}


def _counted(counts: Mapping[Any, tuple[int, int]], encoder: Encoder, name: str) -> pa.Table:
    kind = encoder.vocabularies[name].type
    return pa.table(
        {
            "value": pa.array(list(counts), kind),
            "count": pa.array([count for count, _ in counts.values()], pa.int64()),
            "last": pa.array([last for _, last in counts.values()], pa.int64()),
        }
    )
