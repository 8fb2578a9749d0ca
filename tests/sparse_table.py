"""A small table of embeddings with sparse gradients, for the tests of its optimizers."""

from __future__ import annotations

import torch
from torch import nn


def table(rows: int = 6, width: int = 3, seed: int = 0) -> nn.Embedding:
    torch.manual_seed(seed)
    return nn.Embedding(rows, width, sparse=True)


def backward(embedding: nn.Embedding, ids: list[int], weights: torch.Tensor) -> None:
    """The gradient of the rows ``ids``, which may repeat: ``weights`` (ids, width), summed by row."""
    embedding.weight.grad = None
    (embedding(torch.tensor(ids)) * weights).sum().backward()
