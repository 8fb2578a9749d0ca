"""Sequences and candidates that adapt to the domain: the two generators of ADS.

Chai et al. 2025, "Adaptive Domain Scaling for Personalized Sequential Modeling in Recommenders", section 2.2.
https://arxiv.org/abs/2502.05523

Notation: E_D (B, d_D) describes the distribution of a row, E_S (B, T, d_S) is its history, E_Q (B, d_Q) its candidate.
† The last layer of every generator is 0 at the start, so that both modules start as the identity.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .attention import by_event
from .mlp import he_
from .products import Linear


class SequenceGenerator(nn.Module):
    """PSRG: a linear layer for the events of each row, generated from E_D (section 2.2.1, Eq. 2-5).

    † W_shared = I and η = 2, so that η · W_shared ⊙ sigmoid(0) = I at the start.

    Args:
        domain_features: d_D.
        sequence_features: d_S.
        hidden: d_h, the width of the generators' hidden layers.
        eta: η, which widens the range of the sigmoid.
    """

    def __init__(self, *, domain_features: int, sequence_features: int, hidden: int = 32, eta: float = 2.0) -> None:
        super().__init__()
        self.scale = eta
        self.shared_weight = nn.Parameter(torch.eye(sequence_features))
        self.weight_generator = _generator(domain_features, hidden, sequence_features**2)
        self.bias_generator = _generator(domain_features, hidden, sequence_features)

    def forward(self, e_d: Tensor, e_s: Tensor) -> Tensor:
        """(B, d_D), (B, T, d_S) -> (B, T, d_S); one history (1, T, d_S) may stand for all rows."""
        weight = self.scale * self.shared_weight * self.private(e_d)  # Eq. 3  (B, d_S, d_S)
        bias = self.bias_generator(e_d)  # Eq. 4  (B, d_S)
        return torch.baddbmm(bias.unsqueeze(1), e_s.expand(weight.shape[0], -1, -1), weight.transpose(1, 2))  # Eq. 5

    def private(self, e_d: Tensor) -> Tensor:
        """W_private (B, d_S, d_S)."""
        generated = torch.sigmoid(self.weight_generator(e_d))  # Eq. 2  (B, d_S²)
        return generated.view(-1, *self.shared_weight.shape)


class QueryGenerator(nn.Module):
    """PCRG: a query for each event of the history, generated from E_D and E_Q (section 2.2.2, Eq. 6-7).

    With more than one item per chunk, adjacent events share a query. † Where the chunks do not divide T, there are
    G = ⌈T / items per chunk⌉ of ⌈T / G⌉ events, the oldest chunk being the shorter one.

    Args:
        domain_features: d_D.
        candidate_features: d_Q.
        length: T.
        hidden: d_h, the width of the generator's hidden layer.
        items_per_chunk: the largest number of events that share a query.

    Attributes:
        chunks: G, the number of queries that are generated.
    """

    def __init__(
        self,
        *,
        domain_features: int,
        candidate_features: int,
        length: int,
        hidden: int = 32,
        items_per_chunk: int = 1,
    ) -> None:
        super().__init__()
        self.length = length
        self.chunks = -(-length // items_per_chunk)
        self.generator = _generator(domain_features + candidate_features, hidden, self.chunks * candidate_features)

    def forward(self, e_d: Tensor, e_q: Tensor) -> Tensor:
        """(B, d_D), (B, d_Q) -> (B, T, d_Q): a query for each event."""
        queries = self.queries(e_d, e_q).unsqueeze(2)  # (B, G, 1, d_Q)
        each = -(-self.length // self.chunks)
        return by_event(queries.expand(-1, -1, each, -1), self.length)

    def queries(self, e_d: Tensor, e_q: Tensor) -> Tensor:
        """(B, d_D) or (1, d_D), (B, d_Q) -> (B, G, d_Q): a query for each chunk, as attention takes them."""
        private: Tensor = self.generator(torch.cat([e_d.expand(e_q.shape[0], -1), e_q], dim=1))  # Eq. 6  (B, G·d_Q)
        return private.view(-1, self.chunks, e_q.shape[1]) + e_q.unsqueeze(1)  # Eq. 7


def _generator(in_features: int, hidden: int, out_features: int) -> nn.Sequential:
    first, last = Linear(in_features, hidden), Linear(hidden, out_features)
    he_(first.weight, in_features, relu=True)
    for zero in (first.bias, last.weight, last.bias):
        nn.init.zeros_(zero)
    return nn.Sequential(first, nn.ReLU(), last)
