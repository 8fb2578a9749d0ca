"""The gate unit that scales what a network reads by what is known beforehand.

Chang et al. 2023, "PEPNet: Parameter and Embedding Personalized Network for Infusing with Personalized Prior
Information", section 2.2.1.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .mlp import MLP


class GateNU(nn.Module):
    """``δ = γ sigmoid(ReLU(x W + b) W' + b')`` with γ = 2: factors between 0 and 2, around 1.

    † The hidden layer is as wide as the output.

    Args:
        in_features: width of the prior information.
        out_features: width of what is scaled.
    """

    def __init__(self, *, in_features: int, out_features: int) -> None:
        super().__init__()
        self.mlp = MLP(in_features=in_features, hidden=[out_features], out_features=out_features)

    def forward(self, prior: Tensor) -> Tensor:
        """(B, in_features) -> δ (B, out_features)."""
        return 2 * torch.sigmoid(self.mlp(prior))
