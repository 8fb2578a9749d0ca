"""Running moments of normalization layers, brought up to date when a training has been short so far.

Running means and variances start at 0 and 1 and move by a tenth per batch, while embeddings have a variance near 1e-4:
after a hundred batches nothing is left of the start, after sixteen it is still most of what evaluation would use.
"""

from __future__ import annotations

from contextlib import closing

import torch

from ..layers.normalization import BatchNorm, PartitionedNorm
from ..models.base import MultiDomainModel
from .loading import EpochLoader

SETTLED = 128  # batches after which 0.9 ** 128 = 1e-6 of the start is left


def settle_moments(model: MultiDomainModel, loader: EpochLoader, epoch: int) -> int:
    """Show the training batches to the normalization layers alone, until they have met ``SETTLED`` of them.

    No weight changes and nothing else of the model is in training mode. An epoch of ``SETTLED`` batches needs none.

    Returns:
        the number of batches shown.
    """
    layers = [layer for layer in model.modules() if isinstance(layer, PartitionedNorm | BatchNorm)]
    missing = max(SETTLED - epoch * loader.steps, 0) if layers else 0
    shown = 0
    model.eval()
    for layer in layers:
        layer.train()
    with torch.no_grad():
        while shown < missing:
            with closing(loader.epoch(epoch)) as batches:
                for batch in batches:
                    model(batch)
                    shown += 1
                    if shown == missing:
                        break
    model.eval()
    return shown
