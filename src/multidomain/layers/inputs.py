"""From a batch to what every network reads: fields, z, and what describes the distribution of each row."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from torch import Tensor, nn

from ..batch import Batch
from ..inputs import InputSchema
from .distribution import Distribution
from .distribution import distribution as make_distribution
from .embedding import InputEmbedding, Lookup
from .history import history as make_history


@dataclass(frozen=True)
class Inputs:
    """A batch as a network sees it.

    Attributes:
        fields: (B, F', d), in the order of ``InputEmbedding.fields``.
        domain: (B,), 0 … M.
        lookup: the ids behind the fields, for a second table over them.
    """

    fields: Tensor
    domain: Tensor
    lookup: Lookup
    _describe: Callable[[], Tensor]

    @property
    def z(self) -> Tensor:
        """(B, c): the fields side by side, c = F'·d."""
        return self.fields.flatten(1)

    @cached_property
    def condition(self) -> Tensor:
        """(B, k): the representation of the row's distribution; made when first asked for, once per batch."""
        return self._describe()


class InputLayer(nn.Module):
    """Embeddings shared by all domains, the history encoder and the distribution representation.

    Args:
        schema: the inputs.
        embedding_dim: d.
        history: one of ``HISTORIES``.
        distribution: one of ``DISTRIBUTIONS``.
        unknown_rate: share of training ids, and of domains, replaced by "unknown".
        sparse: sparse gradients for the embedding table.
    """

    def __init__(
        self,
        *,
        schema: InputSchema,
        embedding_dim: int = 16,
        history: str = "mean",
        distribution: str = "domain",
        unknown_rate: float = 0.01,
        sparse: bool = True,
    ) -> None:
        super().__init__()
        self.schema, self.embedding_dim, self.unknown_rate = schema, embedding_dim, unknown_rate
        self.embedding = InputEmbedding(schema=schema, features=embedding_dim, sparse=sparse, unknown_rate=unknown_rate)
        self._distribution_name = distribution
        self.distribution: Distribution | None = None
        self.history = make_history(history)

    @property
    def width(self) -> int:
        """c, the width of :attr:`Inputs.z`."""
        return self.embedding.width

    def describe_distribution(self) -> int:
        """Make the distribution representation, once, for a network that reads it.

        Returns:
            k, the width of :attr:`Inputs.condition`.
        """
        if self.distribution is None:
            self.distribution = make_distribution(
                self._distribution_name,
                schema=self.schema,
                embedding_dim=self.embedding_dim,
                unknown_rate=self.unknown_rate,
            )
        return self.distribution.features

    @property
    def loss(self) -> Tensor | None:
        """What the distribution representation adds to the loss of the batch last seen."""
        return None if self.distribution is None else self.distribution.loss

    def diagnostics(self) -> dict[str, float]:
        """What the distribution representation tells of itself after an epoch."""
        return {} if self.distribution is None else self.distribution.diagnostics()

    def forward(self, batch: Batch) -> Inputs:
        """Embed B rows."""
        embedded = self.embedding(batch)
        if self.distribution is not None:
            self.distribution.loss = None  # that of another batch, should nobody ask for the condition of this one

        def describe() -> Tensor:
            if self.distribution is None:
                raise RuntimeError("call describe_distribution() when the network is made, to read `condition`")
            condition: Tensor = self.distribution(batch.domain, embedded.fields)
            return condition

        return Inputs(fields=embedded.fields, domain=batch.domain, lookup=embedded.lookup, _describe=describe)
