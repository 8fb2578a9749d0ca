"""Train one architecture on an encoded variant."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

    from ...models.base import MultiDomainModel
    from ...schema import Variant
    from ...tensors import EncodedSplit
    from ...window import Window

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
    variant: Variant | None = None,
    encoder: Path | None = None,
    warm_start: str | int | None = None,
    window: Mapping[str, Any] | None = None,
) -> tuple[Writer, pd.DataFrame]:
    """Build the architecture, train it, keep the best weights.

    With ``warm_start`` (a version or alias of the variant's registered model, or the folder of a package) training goes
    on from those weights; values and domains may have been added, left out or put in another order since. With
    ``previous`` it goes on from the newest version that passed the gate and knows no day from ``window.until`` on, or
    starts anew where there is none.

    Returns:
        the model's folder (``weights.safetensors`` and ``model.json``: architecture, configuration, inputs), and the
        history: one row per epoch.

    Raises:
        ConfigurationError: there is no such model to start from, or it differs; the message names in what.
    """
    import pandas as pd
    import torch

    from ...models import build
    from ...packaging.contents import write_model
    from ...tensors import EncodedSplit
    from ...training.config import TrainingConfig
    from ...training.loop import fit
    from ...window import Window

    rows, validation = EncodedSplit(encoded, "train"), EncodedSplit(encoded, "validation")
    torch.manual_seed(seed)
    network = build(architecture, rows.inputs, **model)
    identity = dict(model)
    if warm_start is not None and variant is not None and encoder is not None:
        days = Window.read(window)
        digest = _begin(network, validation, variant, encoder, architecture, model, warm_start, days)
        identity |= {} if digest is None else {"warm_start": digest}
    result = fit(
        network,
        rows,
        validation,
        TrainingConfig(**training),
        seed=seed,
        device=device,
        checkpoints=checkpoints,
        show_progress=show_progress,
        architecture=identity,
    )

    def write(folder: Path) -> None:
        write_model(folder, network, architecture, model)

    return write, pd.DataFrame(result.history)


def _begin(
    network: MultiDomainModel,
    rows: EncodedSplit,
    variant: Variant,
    encoder: Path,
    architecture: str,
    config: dict[str, Any],
    warm_start: str | int,
    window: Window,
) -> str | None:
    """Give the network the weights to start from; a digest of them, or None where it starts anew."""
    from ...encoder import Encoder
    from ...packaging.warm_start import apply, find

    start = find(variant.key, architecture, warm_start, window)
    if start is None:
        return None
    apply(start, network, Encoder.load(encoder), rows, architecture=architecture, config=config)
    return start.digest
