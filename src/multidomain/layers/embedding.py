"""Embeddings: one table for every vocabulary, one pooled lookup per batch."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..batch import Batch
from ..inputs import PADDING, UNKNOWN, InputSchema
from .pooling import pooled_sum


@dataclass(frozen=True)
class Lookup:
    """The ids of a batch, "unknown" drawn, and where they lie in a table of all vocabularies: any such table reads it.

    Attributes:
        ids: (B, N), local to their vocabularies: a column per categorical field, those of each history field and bag.
        rows: (B, N), the row of each id.
        lengths: how many of the N columns each field has, 1 for a categorical one.
    """

    ids: Tensor
    rows: Tensor
    lengths: list[int]

    @property
    def present(self) -> Tensor:
        """Bool (B, N), False for padding."""
        return self.ids != PADDING

    def without(self, first: int, last: int) -> Lookup:
        """Less the fields ``first`` to ``last - 1``."""
        start, end = sum(self.lengths[:first]), sum(self.lengths[:last])
        ids, rows = (torch.cat([part[:, :start], part[:, end:]], dim=1) for part in (self.ids, self.rows))
        return Lookup(ids=ids, rows=rows, lengths=self.lengths[:first] + self.lengths[last:])

    def pooled(self, table: nn.Embedding) -> Tensor:
        """(B, number of fields looked up, width of the table): the mean over the ids present of each field."""
        batch, columns = self.rows.shape
        if columns == 0:
            return table.weight.new_zeros(batch, len(self.lengths), table.embedding_dim)
        weights = self._weights(table.weight.dtype)
        pooled = pooled_sum(table.weight, self.rows, self.lengths, weights, sparse=table.sparse)
        return pooled.view(batch, len(self.lengths), table.embedding_dim)

    def _weights(self, dtype: torch.dtype) -> Tensor:
        """(B, N): one over the number of ids present in the field, 0 for padding."""
        present = self.present.to(dtype)
        if present.shape[1] == len(self.lengths):
            return present
        single = next((i for i, length in enumerate(self.lengths) if length != 1), 0)  # the categorical fields first
        parts = present.split_with_sizes([single, *self.lengths[single:]], 1)
        means = [part / part.sum(1, keepdim=True).clamp_(min=1) for part in parts[1:]]
        return torch.cat([parts[0], *means], dim=1)


@dataclass(frozen=True)
class Embedded:
    """A batch after the embedding layer.

    Attributes:
        fields: (B, F', d), in the order of :attr:`InputEmbedding.fields`: the categorical fields, each history field
            pooled by mean (none if they are not pooled), each bag pooled by mean, the numerical fields.
        lookup: the rows of the table that made them, and those of the history whether pooled or not.
    """

    fields: Tensor
    lookup: Lookup
    _table: nn.Embedding
    _rows: dict[str, Tensor]
    _present: dict[str, Tensor]

    @property
    def z(self) -> Tensor:
        """(B, c): the fields side by side, c = F'·d."""
        return self.fields.flatten(1)

    @property
    def mask(self) -> Tensor:
        """Bool (B, T), True where the history holds an event; (B, 0) without history."""
        if not self._present:
            return self.fields.new_zeros(len(self.fields), 0, dtype=torch.bool)
        return torch.stack(list(self._present.values())).any(dim=0)

    def history(self, field: str) -> Tensor:
        """(B, T, d): one history field, event by event, padding zero. Looked up only when asked for."""
        embedded: Tensor = self._table(self._rows[field])
        return embedded * self._present[field].unsqueeze(-1)

    def events(self) -> Tensor:
        """(B, T, H·d): the H history fields side by side, event by event, padding zero; one lookup for all."""
        embedded: Tensor = self._table(torch.stack(list(self._rows.values()), dim=2))  # (B, T, H, d)
        return (embedded * torch.stack(list(self._present.values()), dim=2).unsqueeze(-1)).flatten(2)


class InputEmbedding(nn.Module):
    """Every input as vectors of one width d.

    All vocabularies lie in **one** table; a vocabulary starts at ``offset[vocabulary]``, in the order of
    ``InputSchema.vocabularies``. Categorical fields, history and bags are looked up and pooled by a single
    ``embedding_bag`` (a categorical field is a bag of one), so that a pooled history is never laid out as (B, T, d).
    Padding has weight zero: it adds nothing to a mean, and its rows stay zero because their gradient is zero. A bag
    or history without ids is the zero vector. A numerical field is its value times a learnt vector.

    The table starts normal with standard deviation 0.01: small beside what training gives to a well-known id, so that
    rare ids add little noise. (On MovieLens 0.05 costs about 0.01 of AUC in each of the first epochs.)

    Args:
        schema: the inputs.
        features: d.
        sparse: give the table's gradient as a sparse tensor of the rows that were met, for an optimizer that touches
            those alone.
        unknown_rate: in training, the share of ids replaced by "unknown", so that those rows are trained.
        std: standard deviation of the vectors at the start.
        pool_history: whether the history fields are pooled by mean; an encoder may want their events alone.
    """

    offsets: Tensor
    sizes: Tensor

    def __init__(
        self,
        *,
        schema: InputSchema,
        features: int,
        sparse: bool = True,
        unknown_rate: float = 0.01,
        std: float = 0.01,
        pool_history: bool = True,
    ) -> None:
        super().__init__()
        self.features = features
        self.unknown_rate = unknown_rate
        self.pool_history = pool_history
        self.fields = (*schema.categorical, *schema.history, *schema.bags, *schema.numerical)
        self._history = dict(schema.history)
        self._bags = dict(schema.bags)
        self._categorical = schema.categorical
        self._numerical = schema.numerical
        if not self.fields:
            raise ValueError("the schema has no input field at all; a model needs at least one")
        starts = dict(zip(schema.vocabularies, [0, *accumulate(schema.vocabularies.values())], strict=False))
        self.table = nn.Embedding(max(sum(schema.vocabularies.values()), 1), features, sparse=sparse)
        nn.init.normal_(self.table.weight, std=std)
        with torch.no_grad():
            self.table.weight[[start + PADDING for start in starts.values()]] = 0.0
        lookups = (*schema.categorical, *schema.history.values(), *schema.bags.values())  # the vocabulary of each
        self.register_buffer("offsets", torch.tensor([starts[name] for name in lookups], dtype=torch.int64))
        self.register_buffer("sizes", torch.tensor([schema.vocabularies[n] for n in lookups], dtype=torch.int64))
        self.numerical_weight = nn.Parameter(torch.empty(len(schema.numerical), features).normal_(std=std))

    @property
    def width(self) -> int:
        """c, the width of :attr:`Embedded.z` with the history fields."""
        return len(self.fields) * self.features

    def forward(self, batch: Batch) -> Embedded:
        """Embed B rows.

        Raises:
            ValueError: a field that is missing, or a number of columns that is not the schema's.
            IndexError: an id outside its vocabulary (looked for on the CPU only, where looking is cheap).
        """
        groups = self._groups(batch)
        ids = torch.cat([group.long() for group in groups], dim=1)  # (B, N)
        lengths = [1] * len(self._categorical) + [group.shape[1] for group in groups[1:]]  # columns of each lookup
        lookup = torch.arange(len(lengths), device=ids.device).repeat_interleave(
            torch.tensor(lengths, dtype=torch.int64, device=ids.device), output_size=sum(lengths)
        )  # (N,): the lookup each column belongs to
        if not ids.is_cuda:
            self._check(ids, lookup)
        if self.training and self.unknown_rate > 0:
            replaced = torch.rand(ids.shape, device=ids.device) < self.unknown_rate
            ids = ids.masked_fill(replaced & (ids != PADDING), UNKNOWN)
        looked_up = Lookup(ids=ids, rows=ids + self.offsets[lookup], lengths=lengths)
        pooled = looked_up if self.pool_history else looked_up.without(*self._histories)
        fields = pooled.pooled(self.table)  # (B, lookups, d)
        if self._numerical:
            fields = torch.cat([fields, batch.numerical.unsqueeze(-1) * self.numerical_weight], dim=1)
        return self._embedded(fields, looked_up)

    def _groups(self, batch: Batch) -> list[Tensor]:
        """All ids of the batch: the categorical ones (B, F), then (B, length) for each history field and bag."""
        for name, got, expected in (
            ("categorical", batch.categorical, self._categorical),
            ("numerical", batch.numerical, self._numerical),
        ):
            if got.shape[1] != len(expected):
                raise ValueError(
                    f"{name} has {got.shape[1]} columns; the model takes {len(expected)}: {', '.join(expected)}"
                )
        for kind, given, needed in (("history", batch.history, self._history), ("bag", batch.bags, self._bags)):
            for name in needed:
                if name not in given:
                    raise ValueError(f"the batch lacks the {kind} field '{name}'; it has {sorted(given)}")
        histories = [batch.history[name] for name in self._history]
        return [batch.categorical, *histories, *(batch.bags[name] for name in self._bags)]

    def _check(self, ids: Tensor, lookup: Tensor) -> None:
        wrong = (ids < 0) | (ids >= self.sizes[lookup])
        if not wrong.any():
            return
        row, column = wrong.nonzero()[0].tolist()
        number = int(lookup[column])
        raise IndexError(
            f"field '{self.fields[number]}' holds the id {int(ids[row, column])} in row {row} of the batch; "
            f"its vocabulary has the ids 0 to {int(self.sizes[number]) - 1}"
        )

    @property
    def _histories(self) -> tuple[int, int]:
        """The first history field among the lookups, and the first field behind them."""
        return len(self._categorical), len(self._categorical) + len(self._history)

    def _embedded(self, fields: Tensor, lookup: Lookup) -> Embedded:
        first, last = self._histories
        of_rows, of_present = (
            dict(zip(self._history, ids.split_with_sizes(lookup.lengths, 1)[first:last], strict=True))
            for ids in (lookup.rows, lookup.present)
        )
        return Embedded(fields=fields, lookup=lookup, _table=self.table, _rows=of_rows, _present=of_present)


class KnownDomains(nn.Module):
    """Domain ids for weights that have a slot per domain and one, slot M, for the unknown domain.

    In training a share of the rows is given slot M, so that it is trained. A domain that training never met counts as
    unknown.

    Args:
        domains: M.
        unknown_rate: the share of training rows that carry M.
    """

    seen: Tensor

    def __init__(self, *, domains: int, unknown_rate: float = 0.01) -> None:
        super().__init__()
        self.domains = domains
        self.unknown_rate = unknown_rate
        self.register_buffer("seen", torch.zeros(domains + 1, dtype=torch.bool))

    def forward(self, domain: Tensor) -> Tensor:
        """(B,) of 0 … M -> int64 (B,) of 0 … M."""
        domain = domain.long()
        if self.training:
            self.seen.index_fill_(0, domain, True)
            unknown = torch.rand(domain.shape, device=domain.device) < self.unknown_rate
        else:
            unknown = ~self.seen[domain]
        return domain.masked_fill(unknown, self.domains)


class DomainEmbedding(nn.Module):
    """A vector per domain and one, slot M, for the unknown domain (see :class:`KnownDomains`).

    Args:
        domains: M.
        features: width of the vectors.
        unknown_rate: the share of training rows that carry M.
        std: standard deviation of the vectors at the start.
    """

    def __init__(self, *, domains: int, features: int, unknown_rate: float = 0.01, std: float = 0.05) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(domains + 1, features).normal_(std=std))
        self.known = KnownDomains(domains=domains, unknown_rate=unknown_rate)

    def forward(self, domain: Tensor) -> Tensor:
        """(B,) -> (B, features)."""
        return F.embedding(self.known(domain), self.weight)
