"""Scores of a whole split."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from ..layers.synchronised import gathered, share, workers
from ..tensors import EncodedSplit
from .device import choose_device, use_available_cores
from .loading import ordered_batches

BATCH = 16384  # rows scored together


def predicted_logits(
    model: nn.Module, split: EncodedSplit, device: str | torch.device | None = None, batch_size: int = BATCH
) -> np.ndarray:
    """The logit of a positive label for every row, in order: float32 (N,).

    The model is moved to the device and computes in float32 there, whatever precision it was trained with.
    """
    chosen = choose_device(device)
    use_available_cores()
    return logits(model.to(chosen), split, chosen, batch_size)


def logits(
    model: nn.Module, split: EncodedSplit, device: torch.device, batch_size: int, *, together: bool = False
) -> np.ndarray:
    """float32 (N,), with the model in evaluation mode; its mode is put back afterwards.

    With ``together``, the processes that train together score a share of the rows each, and all get all scores.
    """
    training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            batches = ordered_batches(split, batch_size, device, share(split.rows) if together else None)
            scores = [model(batch).float() for batch in batches]
            for _ in range(_rounds(split, batch_size) - len(scores) if together else 0):  # others have a batch left
                model(split.batch(slice(0, 0)).to(device))
    finally:
        model.train(training)
    every = torch.cat(scores) if scores else torch.zeros(0, device=device)
    return (gathered(every) if together else every).cpu().numpy()


def _rounds(split: EncodedSplit, batch_size: int) -> int:
    """The most batches that a process has of its share of the rows: all look into a divided table together."""
    most = -(-split.rows // workers())
    return -(-most // batch_size)
