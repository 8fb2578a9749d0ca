"""deepctr-torch: ``compile`` and ``fit`` of its models, which make their own ``DataLoader``, and "adam".

As its quick start has it, without the progress bar's metrics. It has no plain network: ``WDL`` without wide columns.
L2 regularization, on by default, is off, as it is for every side. It sums the loss over rows and tasks, which changes
nothing for Adam. Its weights start with a standard deviation of 0.0001, in layers too, unless ``init_std`` says
otherwise; with three hidden layers it learns nothing for hundreds of steps then, so it is given 0.05 here.
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
    SEED,
    TASKS,
    TOWER,
    Setting,
)

PACKAGE = "deepctr-torch"
LACKS: dict[str, str] = {}
LENGTH = "length"


def load() -> None:
    """Imports the models."""
    import deepctr_torch.inputs
    import deepctr_torch.models
    import deepctr_torch.models.multitask  # noqa: F401


def build(setting: Setting, folder: Path, scratch: Path) -> Training:
    """The training of a setting."""
    del scratch
    return Training(setting, folder)


class Training:
    """A model that trains itself, and its arrays."""

    def __init__(self, setting: Setting, folder: Path) -> None:
        self.setting, self.multi = setting, setting.model in TASKS
        self.rows, self.label, _ = self._columns(folder, "train")
        self.test, _, self.domain = self._columns(folder, "test")
        if self.multi:
            self.label = np.broadcast_to(self.label[:, None], (len(self.label), setting.domains))
        self.model = network(setting)
        loss = ["binary_crossentropy"] * setting.domains if self.multi else "binary_crossentropy"
        self.model.compile("adam", loss)  # its learning rate is torch's, 0.001

    def _columns(self, folder: Path, split: str) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
        rows, label, domain = data.columns(folder, split)
        if self.setting.history:
            rows[LENGTH] = np.full(len(label), self.setting.history, np.int32)
        return rows, label, domain

    def fit(self, tick: Callable[[], None]) -> None:
        """Trains: a step ends with the optimizer's."""
        self.model.optim.register_step_post_hook(lambda *_: tick())
        rows, self.rows = self.rows, {}
        self.model.fit(rows, self.label, batch_size=self.setting.batch_size, epochs=1, verbose=0)

    def scores(self) -> Any:
        """Probabilities of the test rows."""
        found = self.model.predict(dict(self.test), 2048)
        self.model.train()
        return np.take_along_axis(found, self.domain[:, None], 1)[:, 0] if self.multi else found[:, 0]


def network(setting: Setting) -> Any:
    """The model of a setting."""
    from deepctr_torch.inputs import SparseFeat, VarLenSparseFeat
    from deepctr_torch.models import DIN, WDL
    from deepctr_torch.models.multitask import MMOE, PLE, SharedBottom

    size = data.vocabulary(setting)
    columns = [SparseFeat(f"field_{n}", vocabulary_size=size, embedding_dim=DIM) for n in range(data.FIELDS)]
    plain = {"l2_reg_embedding": 0.0, "l2_reg_dnn": 0.0, "init_std": 0.05, "seed": SEED}
    names = [f"domain_{n}" for n in range(setting.domains)]
    tasks = plain | {"l2_reg_linear": 0.0, "task_types": ["binary"] * setting.domains, "task_names": names}
    tasks["tower_dnn_hidden_units"] = TOWER
    experts = {"expert_dnn_hidden_units": EXPERT, "gate_dnn_hidden_units": ()}
    if setting.model == "shared_bottom":
        return SharedBottom(columns, bottom_dnn_hidden_units=EXPERT, **tasks)
    if setting.model == "mmoe":
        return MMOE(columns, num_experts=EXPERTS, **experts, **tasks)
    if setting.model in ("cgc", "ple"):
        return PLE(columns, num_levels=1 if setting.model == "cgc" else 2, **experts, **tasks)
    if setting.model == "din":
        past = SparseFeat(HISTORY, vocabulary_size=size, embedding_dim=DIM, embedding_name=CANDIDATE)
        columns.append(VarLenSparseFeat(past, maxlen=setting.history, length_name=LENGTH))
        attention = {"att_hidden_size": (ATTENTION,), "att_activation": "prelu", "att_weight_normalization": True}
        return DIN(columns, [CANDIDATE], dnn_hidden_units=HIDDEN, **attention, **plain)
    return WDL([], columns, dnn_hidden_units=HIDDEN, l2_reg_linear=0.0, **plain)
