"""What tells a network which distribution a row comes from: one vector per row, chosen in configuration.

``domain``: a learnt vector per domain. ``features``: that vector beside the embeddings of the features which the schema
declares to describe the distribution (the E_D of ADS, section 2.2.1; the x_b of HMDN). ``hmdn`` and ``hmdn_explicit``:
those vectors quantized, HMDN's hierarchical representation s_D.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..inputs import InputSchema
from .embedding import DomainEmbedding
from .mlp import he_
from .quantization import ResidualQuantizer

DISTRIBUTIONS = ("domain", "features", "hmdn", "hmdn_explicit")


class Distribution(nn.Module):
    """A representation: ``(domain (B,), fields (B, F', d)) -> (B, features)``.

    Attributes:
        features: k, its width.
        loss: what it adds to the loss of the batch last seen; None unless it has a loss of its own.
    """

    features: int
    loss: Tensor | None = None

    def diagnostics(self) -> dict[str, float]:
        """See :meth:`multidomain.models.base.MultiDomainModel.diagnostics`."""
        return {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "loss": None}  # a copy does not share the graph of the batch last seen


class RawDomain(Distribution):
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


class DistributionFeatures(Distribution):
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


class HierarchicalDistribution(Distribution):
    """s_D, the distribution features by residual quantization (Lou et al. 2024, HMDN, section 2.3).

    Implicit: x_b, the vectors of :class:`DistributionFeatures` side by side, is quantized in ``depth`` levels.
    Explicit: a level for each type, which quantizes the vector of that type, projected to the width of x_b† by a linear
    map without bias† of its own; nothing is carried over.

    Args:
        schema: the inputs.
        embedding_dim: d.
        unknown_rate: share of training rows that carry the unknown domain.
        explicit: the explicit representation instead of the implicit one.
        depth: D of the implicit representation; the explicit one has a level per type.
        codebook_size: codes per level.
        shared_codebook: one codebook for all levels.
        beta: β of Eq. 5.

    Attributes:
        loss: L_rq (Eq. 5) of the batch last seen; α (Eq. 11) is 1 here.
    """

    def __init__(
        self,
        *,
        schema: InputSchema,
        embedding_dim: int,
        unknown_rate: float = 0.01,
        explicit: bool = False,
        depth: int = 6,
        codebook_size: int = 16,
        shared_codebook: bool = False,
        beta: float = 0.25,
    ) -> None:
        super().__init__()
        self.described = DistributionFeatures(schema=schema, embedding_dim=embedding_dim, unknown_rate=unknown_rate)
        D, z = self.described.types, self.described.features
        self.features = z
        self.projection: nn.Parameter | None = None
        if explicit:
            self.projection = nn.Parameter(torch.empty(D, embedding_dim, z))
            he_(self.projection, embedding_dim, relu=False)
        self.quantizer = ResidualQuantizer(
            features=z,
            depth=D if explicit else depth,
            codebook_size=codebook_size,
            shared_codebook=shared_codebook,
            beta=beta,
        )

    def quantized(self, vectors: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Those that describe the distribution (B, types, d) -> s_D (B, z), codes (B, D), L_rq ()."""
        per_type = self.projection  # explicit: x_b^(d), an input for each level
        x_b = vectors.flatten(1) if per_type is None else torch.einsum("btd,tdz->btz", vectors, per_type)
        answer: tuple[Tensor, Tensor, Tensor] = self.quantizer(x_b)
        return answer

    def forward(self, domain: Tensor, fields: Tensor) -> Tensor:
        """(B,), (B, F', d) -> s_D (B, z)."""
        s_D, _, self.loss = self.quantized(self.described.vectors(domain, fields))
        return s_D

    def diagnostics(self) -> dict[str, float]:
        """How many codes of each level are in use, as a perplexity."""
        levels = enumerate(self.quantizer.perplexity().tolist(), start=1)
        return {f"perplexity_level_{level}": value for level, value in levels}


def distribution(name: str, *, schema: InputSchema, embedding_dim: int, unknown_rate: float = 0.01) -> Distribution:
    """The representation of that name.

    Raises:
        ValueError: a name not in ``DISTRIBUTIONS``.
    """
    if name == "domain":
        return RawDomain(schema=schema, embedding_dim=embedding_dim, unknown_rate=unknown_rate)
    if name == "features":
        return DistributionFeatures(schema=schema, embedding_dim=embedding_dim, unknown_rate=unknown_rate)
    if name in ("hmdn", "hmdn_explicit"):
        return HierarchicalDistribution(
            schema=schema, embedding_dim=embedding_dim, unknown_rate=unknown_rate, explicit=name == "hmdn_explicit"
        )
    raise ValueError(f"no distribution representation is called '{name}'; there are {', '.join(DISTRIBUTIONS)}")
