"""From a batch to what every network reads: fields, z, and what describes the distribution of each row."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..batch import Batch
from ..inputs import DOMAIN, InputSchema
from .distribution import Distribution
from .distribution import distribution as make_distribution
from .embedding import Embedded, InputEmbedding
from .history import NAMED, HistoryEncoder, HistoryOptions, candidates
from .lookup import Lookup


@dataclass(frozen=True)
class Inputs:
    """A batch as a network sees it.

    Attributes:
        fields: (B, F', d), in the order of :attr:`InputLayer.fields`.
        domain: (B,), 0 … M.
        lookup: the ids behind the fields, for a second table over them.
    """

    fields: Tensor
    domain: Tensor
    lookup: Lookup
    _embedded: Embedded
    _describe: Callable[[], Tensor]

    @property
    def z(self) -> Tensor:
        """(B, c): the fields side by side, c = F'·d."""
        return self.fields.flatten(1)

    @property
    def mask(self) -> Tensor:
        """Bool (B, T), True where the history holds an event; (1, T) where the batch repeats the history."""
        return self._embedded.mask

    def events(self) -> Tensor:
        """(B, T, H·d): the H history fields side by side, event by event, padding zero; (1, T, H·d) as the mask."""
        return self._embedded.events()

    @property
    def condition(self) -> Tensor:
        """(B, k): the representation of the row's distribution; made when first asked for, once per batch."""
        return self._describe()


class InputLayer(nn.Module):
    """Embeddings shared by all domains, the history encoder and the distribution representation.

    Args:
        schema: the inputs.
        embedding_dim: d.
        history: one of ``HISTORIES``, or the options of an encoder.
        distribution: one of ``DISTRIBUTIONS``.
        unknown_rate: share of training ids, and of domains, replaced by "unknown".
        sparse: sparse gradients for the embedding table.
    """

    def __init__(
        self,
        *,
        schema: InputSchema,
        embedding_dim: int = 16,
        history: str | HistoryOptions = "mean",
        distribution: str = "domain",
        unknown_rate: float = 0.01,
        sparse: bool = True,
    ) -> None:
        super().__init__()
        self.schema, self.embedding_dim, self.unknown_rate = schema, embedding_dim, unknown_rate
        options = NAMED.get(history) if isinstance(history, str) else history  # None: mean
        self._encoded = 0 if options is None else len(schema.history)  # fields that the encoder makes
        means = options is None or options.mean
        self.embedding = InputEmbedding(
            schema=schema,
            features=embedding_dim,
            sparse=sparse,
            unknown_rate=unknown_rate,
            pool_history=means,
        )
        self._distribution_name = distribution
        self.distribution: Distribution | None = None
        self.history: HistoryEncoder | None = None
        if options is not None:
            self._candidates = _positions(schema, means=means)
            self.history = HistoryEncoder(
                options=options,
                features=len(schema.history) * embedding_dim,
                length=schema.history_length,
                condition=self.describe_distribution() if options.adaptive else 0,
            )

    @property
    def fields(self) -> tuple[str, ...]:
        """The names of :attr:`Inputs.fields`."""
        names = self.embedding.fields
        if not self._encoded or not self.embedding.pool_history:
            return names
        first, last = len(self.schema.categorical), len(self.schema.categorical) + self._encoded
        return (*names[:last], *(f"{name} (mean)" for name in names[first:last]), *names[last:])

    @property
    def width(self) -> int:
        """c, the width of :attr:`Inputs.z`."""
        return len(self.fields) * self.embedding_dim

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
        describe = self._describe(batch, embedded)
        fields = embedded.fields
        if self.history is not None:
            e_s, e_q, mask, e_d = self._past(embedded, describe)
            if e_d is not None and not self.training and batch.repeated >= {DOMAIN, *self.schema.distribution}:
                e_d = e_d[:1]
            s = self.history(e_s, e_q, mask, e_d)  # (B, H·d)
            s = s.unflatten(1, (self._encoded, self.embedding_dim))
            first = len(self.schema.categorical)
            fields = torch.cat([fields[:, :first], s, fields[:, first:]], dim=1)  # where the means would be, or before
        lookup = embedded.lookup
        return Inputs(fields=fields, domain=batch.domain, lookup=lookup, _embedded=embedded, _describe=describe)

    def insights(self, batch: Batch) -> dict[str, Tensor]:
        """What the history encoder does with each row; see :meth:`HistoryEncoder.insights`."""
        if self.history is None:
            return {}
        embedded = self.embedding(batch)
        return self.history.insights(*self._past(embedded, self._describe(batch, embedded)))

    def _describe(self, batch: Batch, embedded: Embedded) -> Callable[[], Tensor]:
        """The distribution representation of a batch, made when first called: its networks and the history share it.

        It is given fields of which the categorical ones come first; those of the history are among them if pooled.
        """

        @cache
        def describe() -> Tensor:
            if self.distribution is None:
                raise RuntimeError("call describe_distribution() when the network is made, to read `condition`")
            condition: Tensor = self.distribution(batch.domain, embedded.fields)
            return condition

        return describe

    def _past(self, embedded: Embedded, describe: Callable[[], Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """E_S (B, T, H·d), E_Q (B, H·d), the mask (B, T) and, where it is read, E_D (B, d_D)."""
        assert self.history is not None
        fields = embedded.fields
        if None in self._candidates:
            fields = F.pad(fields, (0, 0, 0, 1))  # a field of zeros, the last
        e_q = fields[:, [-1 if at is None else at for at in self._candidates]].flatten(1)
        return embedded.events(), e_q, embedded.mask, describe() if self.history.adaptive else None


def _positions(schema: InputSchema, *, means: bool) -> list[int | None]:
    """Where the candidate of each history field is among the embedding's fields, with or without the means."""
    fields = (*schema.categorical, *(schema.history if means else ()), *schema.bags)
    return [None if name is None else fields.index(name) for name in candidates(schema).values()]
