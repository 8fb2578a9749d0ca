"""What tells a network which distribution a row comes from: one vector per row, chosen in configuration.

``domain``: a learnt vector per domain. ``features``: that vector beside the embeddings of the features which the schema
declares to describe the distribution (the E_D of ADS, section 2.2.1; the x_b of HMDN).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..inputs import InputSchema
from .embedding import DomainEmbedding

DISTRIBUTIONS = ("domain", "features")


class RawDomain(nn.Module):
    """The embedding of the domain alone.

    Args:
        schema: the inputs.
        embedding_dim: d.
        unknown_rate: share of training rows that carry the unknown domain.
    """

    def __init__(self, *, schema: InputSchema, embedding_dim: int, unknown_rate: float = 0.01) -> None:
        super().__init__()
        self.domain = DomainEmbedding(domains=schema.domains, features=embedding_dim, unknown_rate=unknown_rate)
        self.features = embedding_dim

    def forward(self, domain: Tensor, fields: Tensor) -> Tensor:  # noqa: ARG002
        """(B,), (B, F', d) -> (B, d)."""
        condition: Tensor = self.domain(domain)
        return condition


class DistributionFeatures(nn.Module):
    """The embedding of the domain beside those of the distribution features.

    Args:
        schema: the inputs.
        embedding_dim: d.
        unknown_rate: share of training rows that carry the unknown domain.

    Attributes:
        types: D, the number of vectors: the domain and each distribution feature.
    """

    def __init__(self, *, schema: InputSchema, embedding_dim: int, unknown_rate: float = 0.01) -> None:
        super().__init__()
        self.domain = DomainEmbedding(domains=schema.domains, features=embedding_dim, unknown_rate=unknown_rate)
        self._positions = [schema.categorical.index(name) for name in schema.distribution]
        self.types = 1 + len(self._positions)
        self.features = self.types * embedding_dim

    def vectors(self, domain: Tensor, fields: Tensor) -> Tensor:
        """(B,), (B, F', d) -> (B, D, d): one vector per type, the domain first."""
        return torch.cat([self.domain(domain).unsqueeze(1), fields[:, self._positions]], dim=1)

    def forward(self, domain: Tensor, fields: Tensor) -> Tensor:
        """(B,), (B, F', d) -> (B, D·d)."""
        return self.vectors(domain, fields).flatten(1)


def distribution(name: str, *, schema: InputSchema, embedding_dim: int, unknown_rate: float = 0.01) -> nn.Module:
    """The representation of that name; called ``(domain (B,), fields (B, F', d)) -> (B, features)``.

    Its ``features`` is that width. A representation with a loss of its own keeps it in ``loss``.

    Raises:
        ValueError: a name not in ``DISTRIBUTIONS``.
    """
    if name == "domain":
        return RawDomain(schema=schema, embedding_dim=embedding_dim, unknown_rate=unknown_rate)
    if name == "features":
        return DistributionFeatures(schema=schema, embedding_dim=embedding_dim, unknown_rate=unknown_rate)
    raise ValueError(f"no distribution representation is called '{name}'; there are {', '.join(DISTRIBUTIONS)}")
