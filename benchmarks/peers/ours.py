"""This project: a model of ``models.build``, trained by ``training.fit`` from memory-mapped tensors.

Nothing is taken out of the training that a run has: "unknown" is drawn for 1 % of the ids, gradients are guarded, the
next batch is made ready meanwhile. Validation would come after the epoch, which no setting reaches.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from .settings import ATTENTION, DIM, EXPERT, EXPERTS, HIDDEN, LEARNING_RATE, SEED, TOWER, Setting

PACKAGE = None
LACKS: dict[str, str] = {}
BARE = {"normalization": "none", "auxiliary": False, "embedding_dim": DIM}
CONFIGURATION: dict[str, dict[str, Any]] = {
    "dnn": {"hidden": HIDDEN},
    "din": {"hidden": HIDDEN, "attention_dim": ATTENTION},
    "shared_bottom": {"hidden": EXPERT, "tower": TOWER},
    "mmoe": {"experts": EXPERTS, "hidden": EXPERT, "tower": TOWER},
    "cgc": {"levels": 1, "hidden": EXPERT, "tower": TOWER},
    "ple": {"levels": 2, "hidden": EXPERT, "tower": TOWER},
}


def load() -> None:
    """Imports the training."""
    import multidomain.models
    import multidomain.training.loop  # noqa: F401


def build(setting: Setting, folder: Path, scratch: Path) -> Training:
    """The training of a setting."""
    return Training(setting, folder, scratch)


class Training:
    """A model and its splits."""

    def __init__(self, setting: Setting, folder: Path, scratch: Path, *, precision: str = "float32") -> None:
        import torch

        from multidomain import models
        from multidomain.tensors import EncodedSplit

        torch.manual_seed(SEED)
        self.setting, self.scratch, self.precision = setting, scratch, precision
        self.splits = {name: EncodedSplit(folder, name) for name in ("train", "validation", "test")}
        name = "ple" if setting.model == "cgc" else setting.model
        self.model = models.build(name, self.splits["train"].inputs, **BARE, **CONFIGURATION[setting.model])

    def fit(self, tick: Callable[[], None]) -> None:
        """Trains: the next forward pass in training is the end of a step."""
        from multidomain.training.config import TrainingConfig
        from multidomain.training.loop import fit

        begun = False

        def before(model: Any, _: Any) -> None:
            nonlocal begun
            if model.training:
                if begun:
                    tick()
                begun = True

        self.model.register_forward_pre_hook(before)
        config = TrainingConfig(
            epochs=1, batch_size=self.setting.batch_size, learning_rate=LEARNING_RATE, precision=self.precision
        )
        splits = self.splits["train"], self.splits["validation"]
        fit(self.model, *splits, config, seed=SEED, checkpoints=self.scratch, device="cpu", show_progress=False)

    def scores(self) -> Any:
        """Logits of the test rows."""
        import torch

        from multidomain.training.prediction import logits

        found = logits(self.model, self.splits["test"], torch.device("cpu"), 2048)
        self.model.train()
        return found
