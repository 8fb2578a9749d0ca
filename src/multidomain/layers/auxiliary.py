"""The auxiliary network of STAR, a switch of every model.

Sheng et al. 2021, "One Model to Serve All: Star Topology Adaptive Recommender for Multi-Domain CTR Prediction",
section 3.5, Eq. 7.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .embedding import DomainEmbedding
from .mlp import MLP


class AuxiliaryNetwork(nn.Module):
    """``s_a``: a two-layer network that sees the domain directly; the logit is ``s_m + s_a``.

    † z comes before normalization (a normalization per domain would remove the very offsets between domains); 64 hidden
    units; 1 % of the training rows carry the unknown domain, here alone.

    Args:
        features: c, the width of z.
        domains: M.
        embedding_dim: width of the domain embedding.
        hidden: width of the hidden layer.
        unknown_rate: share of training rows that carry domain M.
    """

    def __init__(
        self, *, features: int, domains: int, embedding_dim: int, hidden: int = 64, unknown_rate: float = 0.01
    ) -> None:
        super().__init__()
        self.domain = DomainEmbedding(domains=domains, features=embedding_dim, unknown_rate=unknown_rate)
        self.mlp = MLP(in_features=embedding_dim + features, hidden=[hidden])

    def forward(self, z: Tensor, domain: Tensor) -> Tensor:
        """(B, c), (B,) -> s_a (B,)."""
        x = torch.cat([self.domain(domain), z], dim=1)  # (B, embedding_dim + c)
        output: Tensor = self.mlp(x)[:, 0]
        return output
