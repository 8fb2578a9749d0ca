"""One training step, as the training loop takes it, in parts that can be timed."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from torch.nn.functional import binary_cross_entropy_with_logits

from multidomain.batch import Batch
from multidomain.inputs import InputSchema
from multidomain.models import build
from multidomain.training import device
from multidomain.training.config import TrainingConfig
from multidomain.training.guard import GradientGuard
from multidomain.training.optimizers import Optimizers

from .measure import CLOCKS

PARTS = ("forward", "backward", "guard", "optimizers")
CHECK = 10  # steps between two looks at the gradients, as in the loop on the CPU


class TrainingStep:
    """A model, its optimizers and its guard, and batches that come round again.

    Args:
        name: of the architecture.
        schema: the inputs.
        batches: to train on, in turn.
        model: options of the architecture.
        training: options of training.
        seed: of the weights.
    """

    def __init__(
        self,
        name: str,
        schema: InputSchema,
        batches: Sequence[Batch],
        *,
        model: Mapping[str, Any] | None = None,
        training: Mapping[str, Any] | None = None,
        seed: int = 1,
    ) -> None:
        getattr(device, "keep_freed_memory", bool)()  # as training does; a checkout from before it has none
        torch.manual_seed(seed)
        self.config = TrainingConfig.from_dict(dict(training or {}))
        self.model = build(name, schema, max_domain_weight_gib=16.0, **dict(model or {})).train()
        self.optimizers = Optimizers(self.model, self.config, steps_per_epoch=1_000_000)
        self.guard = GradientGuard(self.model, self.config)
        self.rows = len(batches[0])
        self._precision = getattr(self.config, "precision", "auto")  # a checkout from before it has none
        self._batches = itertools.cycle(batches)
        self._number = 0

    def __call__(self) -> None:
        """One step."""
        self.timed(next(self._batches))

    def timed(self, batch: Batch, clock: str = "wall") -> dict[str, float]:
        """One step on this batch: seconds of each of ``PARTS``."""
        now = CLOCKS[clock]
        marks = [now()]
        with device.autocast(torch.device("cpu"), *([self._precision] if self._precision != "auto" else [])):
            scores = self.model(batch)
            auxiliary = self.model.auxiliary_loss()
        loss = binary_cross_entropy_with_logits(scores.float(), batch.label) + auxiliary.float()
        marks.append(now())
        self.optimizers.zero_grad()
        loss.backward()
        marks.append(now())
        self._number += 1
        self.guard.watch(self._number, batch, loss)
        if self._number % CHECK == 0:
            self.guard.check(1)
        marks.append(now())
        self.optimizers.step(self._number - 1)
        marks.append(now())
        return {name: end - start for name, (start, end) in zip(PARTS, itertools.pairwise(marks), strict=True)}


class EmbeddingStep:
    """The input layer of a model with its own optimizer and nothing behind it: lookup, backward, update.

    Args:
        schema: the inputs.
        batches: to train on, in turn.
        features: width of the embeddings.
    """

    def __init__(self, schema: InputSchema, batches: Sequence[Batch], *, features: int) -> None:
        model = build("dnn", schema, hidden=[1], auxiliary=False, embedding_dim=features)
        self.layer, self.rows = model.inputs.train(), len(batches[0])
        self.optimizers = Optimizers(self.layer, TrainingConfig(), steps_per_epoch=1_000_000)
        self._batches = itertools.cycle(batches)
        self._number = 0

    def __call__(self) -> None:
        """One step."""
        self.optimizers.zero_grad()
        self.layer(next(self._batches)).fields.square().sum().backward()
        self.optimizers.step(self._number)
        self._number += 1


def configured(checkout: Path, name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The options of model and training in the configuration of a checkout."""
    path = checkout / "conf/base/parameters/models" / f"{name}.yml"
    section = yaml.safe_load(path.read_text(encoding="utf-8"))[name]
    training = {key: value for key, value in section["training"].items() if not str(value).startswith("${")}
    return section["model"], training
