"""What a packaged model does: rows as the feature stage delivers them in, one probability per row out.

This module and what it imports are copied into every package under a name of the package's own, so that a model
scores with the code it was trained with, whatever is installed and whichever other versions are loaded beside it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from safetensors.torch import load_file

from ..calibration import Calibration
from ..encoder import Encoder
from ..inputs import InputSchema
from ..models import build, build_serving
from .rows import RowScorer


class Scorer(RowScorer):
    """An encoder and a model; what candidates share is looked up and pooled once, too.

    Args:
        encoder: fitted on the training split of the variant the model was trained on.
        model: in evaluation mode; gives one logit per row of a batch.
        calibration: None: a probability is the logistic function of the logit.
    """

    def __init__(self, *, encoder: Encoder, model: torch.nn.Module, calibration: Calibration | None = None) -> None:
        super().__init__(encoder=encoder, calibration=calibration)
        self.model = model

    @classmethod
    def load(cls, encoder: Path | str, model: Path | str) -> Scorer:
        """Read both from their folders."""
        folder = Path(model)
        return cls(encoder=Encoder.load(Path(encoder)), model=restore(folder), calibration=Calibration.read(folder))

    @torch.inference_mode()
    def _score(self, part: pa.Table, shared: pa.Table | None) -> npt.NDArray[np.float64]:
        batch = self.encoder.batch(part, shared)
        logits = self.model(batch).double()
        if self.calibration is None:
            probabilities: npt.NDArray[np.float64] = torch.sigmoid(logits).numpy()
            return probabilities
        return self.calibration.probabilities(logits.numpy(), batch.domain.long().numpy())


def restore(folder: Path) -> Any:
    """A model in evaluation mode from ``model.json`` and ``weights.safetensors``.

    With ``"serving": true`` the weights are those of the model's ``serving_form()``, folded once.
    """
    about: dict[str, Any] = json.loads((folder / "model.json").read_text(encoding="utf-8"))
    architecture, inputs, config = about["architecture"], InputSchema.from_dict(about["inputs"]), dict(about["config"])
    if about.get("serving"):
        config.pop("max_domain_weight_gib", None)  # a limit of training
        model = build_serving(architecture, inputs, **config)
    else:
        model = build(architecture, inputs, **config)
    model.load_state_dict(load_file(folder / "weights.safetensors"))
    model.logit_offset = about.get("logit_offset", 0.0)
    return model.eval()
