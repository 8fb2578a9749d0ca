"""Mixtures of experts: networks of one shape on the same rows, weighted row by row.

Ma et al. 2018, "Modeling Task Relationships in Multi-task Learning with Multi-gate Mixture-of-Experts", Eq. 5-6.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from .dropout import Dropout
from .mlp import he_


class Experts(nn.Module):
    """E networks, ReLU after every layer; one batched product per layer for all of them.

    Args:
        in_features: c, width of the input.
        hidden: widths of the layers; the last is h, the width of an expert's output.
        experts: E.
        dropout: share of activations dropped in training.
    """

    def __init__(self, *, in_features: int, hidden: Sequence[int], experts: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.experts = experts
        self.features = hidden[-1] if hidden else in_features
        pairs = list(pairwise([in_features, *hidden]))
        self.weights = nn.ParameterList(torch.empty(experts, i, o) for i, o in pairs)
        self.biases = nn.ParameterList(torch.zeros(experts, 1, o) for _, o in pairs)
        self.dropout = Dropout(share=dropout)
        for weight, (i, _) in zip(self.weights, pairs, strict=True):
            he_(weight, i, relu=True)

    def forward(self, x: Tensor) -> Tensor:
        """(B, c), or (E, B, c) with an input for each expert -> (E, B, h)."""
        x = x.expand(self.experts, *x.shape[-2:])
        for weight, bias in zip(self.weights, self.biases, strict=True):
            x = self.dropout(torch.relu(torch.baddbmm(bias, x, weight)))
        return x


def mix(gate: Tensor, outputs: Tensor) -> Tensor:
    """The experts' outputs weighted by a gate: (B, E), (E, B, h) -> (B, h)."""
    return torch.einsum("be,ebh->bh", gate, outputs)
