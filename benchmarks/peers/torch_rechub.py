"""torch-rechub: ``DataGenerator`` with its default of no worker, ``CTRTrainer`` and ``MTLTrainer``, Adam.

As its quick start has it. It has no plain network: ``EmbeddingLayer`` and ``MLP``, which its models are made of, one
after the other. Its MLP normalizes every hidden layer by the batch, and its DIN has Dice in the place of ReLU; neither
can be chosen away. ``MTLTrainer`` takes the mean of the tasks' losses.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from . import data
from .settings import (
    ATTENTION,
    CANDIDATE,
    DIM,
    EXPERT,
    EXPERTS,
    HIDDEN,
    HISTORY,
    LEARNING_RATE,
    SEED,
    TASKS,
    TOWER,
    Setting,
)

PACKAGE = "torch-rechub"
LACKS: dict[str, str] = {}


def load() -> None:
    """Imports trainers and models."""
    import torch_rechub.models.multi_task
    import torch_rechub.models.ranking
    import torch_rechub.trainers
    import torch_rechub.utils.data  # noqa: F401


def build(setting: Setting, folder: Path, scratch: Path) -> Training:
    """The training of a setting."""
    return Training(setting, folder, scratch)


class Training:
    """A model, its trainer and its loaders."""

    def __init__(self, setting: Setting, folder: Path, scratch: Path) -> None:
        import torch
        from torch_rechub.trainers import CTRTrainer, MTLTrainer
        from torch_rechub.utils.data import DataGenerator

        torch.manual_seed(SEED)
        self.multi = setting.model in TASKS
        rows, label, _ = data.columns(folder, "train")
        self.test, test_label, self.domain = data.columns(folder, "test")
        if self.multi:
            label, test_label = (
                np.broadcast_to(one[:, None], (len(one), setting.domains)) for one in (label, test_label)
            )
        generator = DataGenerator(rows, label)
        held_out = {"x_val": self.test, "y_val": test_label, "x_test": self.test, "y_test": test_label}
        self.loaders = generator.generate_dataloader(**held_out, batch_size=setting.batch_size)
        self.model = network(setting)
        options = {"optimizer_params": {"lr": LEARNING_RATE}, "n_epoch": 1, "model_path": str(scratch)}
        if self.multi:
            self.trainer = MTLTrainer(self.model, ["classification"] * setting.domains, **options)
        else:
            self.trainer = CTRTrainer(self.model, **options)

    def fit(self, tick: Callable[[], None]) -> None:
        """Trains: a step ends with the optimizer's."""
        self.trainer.optimizer.register_step_post_hook(lambda *_: tick())
        self.trainer.fit(self.loaders[0], self.loaders[1])

    def scores(self) -> Any:
        """Probabilities of the test rows."""
        import torch

        self.model.eval()
        found = []
        with torch.no_grad():
            for start in range(0, len(self.domain), 2048):
                rows = slice(start, start + 2048)
                given = {name: torch.from_numpy(values[rows]) for name, values in self.test.items()}
                output = self.model(given)
                own = torch.from_numpy(self.domain[rows])[:, None]
                found.append((output.gather(1, own)[:, 0] if self.multi else output).numpy())
        self.model.train()
        return np.concatenate(found)


def network(setting: Setting) -> Any:
    """The model of a setting."""
    from torch_rechub.basic.features import SequenceFeature, SparseFeature
    from torch_rechub.models.multi_task import MMOE, PLE, SharedBottom
    from torch_rechub.models.ranking import DIN

    size = data.vocabulary(setting)
    features = [SparseFeature(f"field_{n}", vocab_size=size, embed_dim=DIM) for n in range(data.FIELDS)]
    expert, towers = {"dims": list(EXPERT)}, [{"dims": list(TOWER)}] * setting.domains
    tasks = ["classification"] * setting.domains
    if setting.model == "shared_bottom":
        return SharedBottom(features, tasks, expert, towers)
    if setting.model == "mmoe":
        return MMOE(features, tasks, EXPERTS, expert, towers)
    if setting.model in ("cgc", "ple"):
        return PLE(features, tasks, 1 if setting.model == "cgc" else 2, 1, 1, expert, towers)
    if setting.model == "din":
        options = {"vocab_size": size, "embed_dim": DIM, "pooling": "concat", "shared_with": CANDIDATE}
        attention = {"dims": [ATTENTION], "activation": "prelu", "use_softmax": True}
        history = [SequenceFeature(HISTORY, **options)]
        return DIN(features[1:], history, features[:1], {"dims": list(HIDDEN)}, attention)
    return plain(features)


def plain(features: list[Any]) -> Any:
    """Embeddings and a fully-connected network."""
    import torch
    from torch_rechub.basic.layers import MLP, EmbeddingLayer

    class Plain(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = EmbeddingLayer(features)
            self.mlp = MLP(sum(feature.embed_dim for feature in features), dims=list(HIDDEN))

        def forward(self, x: dict[str, torch.Tensor]) -> torch.Tensor:
            return torch.sigmoid(self.mlp(self.embedding(x, features, squeeze_dim=True)).squeeze(1))

    return Plain()
