"""Checkpoints: what a run needs to go on after its last whole epoch, exactly as if it had never stopped.

A checkpoint is a folder ``epoch-0003`` of safetensors and JSON, written under a hidden name and then renamed, so that
it is there whole or not at all. No state of a random generator is kept: everything random in an epoch is seeded from
the run's seed and the number of the epoch.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from ..disk import require_space
from ..tensors import EncodedSplit
from .checkpoint_folder import CheckpointFolder
from .config import TrainingConfig
from .optimizers import Optimizers
from .pieces import tensors_but

if TYPE_CHECKING:
    from .shards import Shards

logger = logging.getLogger(__name__)


@dataclass
class TrainingState:
    """How far a run has come.

    Attributes:
        history: one record per finished epoch.
        best_epoch: the epoch with the best validation score so far, from 1; 0 before the first.
        best_score: that score; higher is better.
        best_weights: the model's state after that epoch.
    """

    history: list[dict[str, float]] = field(default_factory=list)
    best_epoch: int = 0
    best_score: float = -float("inf")
    best_weights: dict[str, Tensor] = field(default_factory=dict)

    @property
    def epoch(self) -> int:
        """Finished epochs."""
        return len(self.history)


def fingerprint(
    model: nn.Module,
    train: EncodedSplit,
    validation: EncodedSplit,
    config: TrainingConfig,
    *,
    seed: int,
    architecture: Mapping[str, Any] | None = None,
) -> dict[str, str]:
    """What a checkpoint must agree with to be gone on from: part -> digest."""
    shapes = {name: list(value.shape) for name, value in model.state_dict().items()}
    return {
        "configuration": _digest(config.settings()),
        "architecture": _digest([type(model).__qualname__, repr(model), shapes, dict(architecture or {})]),
        "seed": str(seed),
        "training rows": train.digest(),
        "validation rows": validation.digest(),
    }


def require_room(folder: Path, model: nn.Module) -> None:
    """Look, before the first epoch, for the room that a checkpoint takes after it: weights and Adam's two moments.

    Raises:
        DataError: the disk has less.
    """
    folder.mkdir(parents=True, exist_ok=True)
    weights = sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())
    require_space(folder, 3 * weights + (1 << 20), "a training checkpoint")


class Checkpoints(CheckpointFolder):
    """The checkpoints of one run in one folder; only the newest is kept.

    Args:
        folder: made when needed; nobody else's.
        identity: see :func:`fingerprint`. A checkpoint of another identity is not used, and a message says why.
        shards: where the table is divided among workers: they read and write their rows of the same files.
    """

    def __init__(self, folder: Path | str, identity: Mapping[str, str], shards: Shards | None = None) -> None:
        super().__init__(folder, "epoch")
        self.identity, self._shards = dict(identity), shards

    def restore(self, model: nn.Module, optimizers: Optimizers) -> TrainingState:
        """Puts model and optimizers where the newest checkpoint left them; a fresh state when there is none to use."""
        self.sweep()
        for path in self.newest_first():
            try:
                state, weights, moments = self._read(path)
            except (OSError, ValueError, KeyError, SafetensorError, _Different) as error:
                logger.warning("The checkpoint %s is not used: %s", path, error)
                continue
            model.load_state_dict(weights)
            load_optimizer_tensors(optimizers, moments)
            logger.info("Training goes on after epoch %d, from %s", state.epoch, path)
            if self._shards:
                self._shards.restore(path, state.best_epoch == state.epoch)
            return state
        if self._shards:
            self._shards.restore(None, False)
        return TrainingState()

    def save(self, model: nn.Module, optimizers: Optimizers, state: TrainingState) -> None:
        """Writes the checkpoint of ``state.epoch`` and removes older ones.

        Raises:
            DataError: the disk is full.
        """
        weights, moments = plain_weights(model), optimizer_tensors(optimizers)
        best = {} if state.best_epoch == state.epoch else state.best_weights
        parts = {"model": weights, "optimizers": moments, "best": best}
        needed = sum(t.nbytes for part in parts.values() for t in part.values())
        if self._shards:
            parts["optimizers"] = self._shards.whole_names(moments)
            needed += self._shards.nbytes
        numbers = {"history": state.history, "best_epoch": state.best_epoch, "best_score": state.best_score}

        def fill(folder: Path) -> None:
            if self._shards:
                self._shards.save(folder, parts, state.best_epoch == state.epoch)
            else:
                for name, tensors in parts.items():
                    save_file(tensors, folder / f"{name}.safetensors")
            text = json.dumps({"fingerprint": self.identity, **numbers}, indent=1)
            (folder / "state.json").write_text(text, encoding="utf-8")

        self.write(f"epoch-{state.epoch:04d}", fill, needed=needed)

    def _read(self, path: Path) -> tuple[TrainingState, dict[str, Tensor], dict[str, Tensor]]:
        raw = json.loads((path / "state.json").read_text(encoding="utf-8"))
        differing = [part for part, digest in self.identity.items() if raw["fingerprint"].get(part) != digest]
        if differing:
            raise _Different(f"it was made with other {' and '.join(differing)}. Training starts afresh.")
        apart = self._shards.names if self._shards else ()
        weights, moments = (tensors_but(path / f"{name}.safetensors", *apart) for name in ("model", "optimizers"))
        if self._shards:
            moments = self._shards.own_names(moments)
        state = TrainingState(raw["history"], raw["best_epoch"], raw["best_score"])
        last_is_best = state.best_epoch == state.epoch
        state.best_weights = weights if last_is_best else tensors_but(path / "best.safetensors", *apart)
        return state, weights, moments


class _Different(Exception):
    """A checkpoint of another run."""


def plain_weights(model: nn.Module, *apart: str) -> dict[str, Tensor]:
    """A copy of the model's state on the CPU, less what is named: every tensor contiguous, in memory of its own."""
    state = {name: value for name, value in model.state_dict().items() if name not in apart}
    return {name: value.detach().to("cpu", copy=True).contiguous() for name, value in state.items()}


def optimizer_tensors(optimizers: Optimizers) -> dict[str, Tensor]:
    """``dense.3.exp_avg``: optimizer, number of the parameter, name of the tensor."""
    tensors = {}
    for name, optimizer in optimizers.named.items():
        for number, state in optimizer.state_dict()["state"].items():
            for key, value in state.items():
                tensors[f"{name}.{number}.{key}"] = value.detach().to("cpu", copy=True).contiguous()
    return tensors


def load_optimizer_tensors(optimizers: Optimizers, tensors: Mapping[str, Tensor]) -> None:
    """The inverse of :func:`optimizer_tensors`."""
    states: dict[str, dict[int, dict[str, Tensor]]] = {name: {} for name in optimizers.named}
    for path, value in tensors.items():
        name, number, key = path.split(".")
        states[name].setdefault(int(number), {})[key] = value
    for name, optimizer in optimizers.named.items():
        optimizer.load_state_dict({"state": states[name], "param_groups": optimizer.state_dict()["param_groups"]})


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()
