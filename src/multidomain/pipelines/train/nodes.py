"""Train one architecture on an encoded variant."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

Writer = Callable[[Path], None]


def train(
    encoded: Path,
    checkpoints: Path,
    architecture: str,
    model: dict[str, Any],
    training: dict[str, Any],
    seed: int,
    device: str | None,
    show_progress: bool = True,
) -> tuple[Writer, pd.DataFrame]:
    """Build the architecture, train it, keep the best weights.

    Returns:
        the model's folder (``weights.safetensors`` and ``model.json``: architecture, configuration, inputs), and the
        history: one row per epoch.
    """
    import pandas as pd
    import torch
    from safetensors.torch import save_file

    from ...models import build
    from ...tensors import EncodedSplit
    from ...training.config import TrainingConfig
    from ...training.loop import fit

    rows, validation = EncodedSplit(encoded, "train"), EncodedSplit(encoded, "validation")
    torch.manual_seed(seed)
    network = build(architecture, rows.inputs, **model)
    result = fit(
        network,
        rows,
        validation,
        TrainingConfig(**training),
        seed=seed,
        device=device,
        checkpoints=checkpoints,
        show_progress=show_progress,
        architecture=model,
    )

    def write(folder: Path) -> None:
        save_file({k: v.cpu().contiguous() for k, v in network.state_dict().items()}, folder / "weights.safetensors")
        description = {"architecture": architecture, "config": model, "inputs": rows.inputs.to_dict()}
        (folder / "model.json").write_text(json.dumps(description, indent=1), encoding="utf-8")

    return write, pd.DataFrame(result.history)
