"""The auxiliary network of STAR, a switch of every model.

Sheng et al. 2021, "One Model to Serve All: Star Topology Adaptive Recommender for Multi-Domain CTR Prediction",
section 3.5, Eq. 7.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .mlp import MLP


class AuxiliaryNetwork(nn.Module):
    """``s_a``: a two-layer network that sees the domain directly; the logit is ``s_m + s_a``.

    † z comes before normalization (a normalization per domain would remove the very offsets between domains); 64 hidden
    units.

    Args:
        features: c, the width of z.
        condition: width of what describes the domain: its embedding (the paper), or another representation.
        hidden: width of the hidden layer.
    """

    def __init__(self, *, features: int, condition: int, hidden: int = 64) -> None:
        super().__init__()
        self.mlp = MLP(in_features=condition + features, hidden=[hidden])

    def forward(self, z: Tensor, condition: Tensor) -> Tensor:
        """(B, c), (B, condition) -> s_a (B,)."""
        output: Tensor = self.mlp(torch.cat([condition, z], dim=1))[:, 0]
        return output
