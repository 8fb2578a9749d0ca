"""Embeddings: one table for every vocabulary, one pooled lookup per batch."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..batch import Batch
from ..inputs import PADDING, UNKNOWN, InputSchema
from .exporting import exporting
from .lookup import Ids, Lookup, Table, indices, layout, own_and_once
from .remote import fetched
from .synchronised import draws, total

WORTH = 30_000  # repeated ids from which on pooling them apart is faster (measured with 100 and 500 rows)


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
    _table: Table
    _found: Lookup  # the same ids, where they lie in that table
    _history: dict[str, int]  # history field -> its place among the fields looked up

    @property
    def z(self) -> Tensor:
        """(B, c): the fields side by side, c = F'·d."""
        return self.fields.flatten(1)

    @property
    def mask(self) -> Tensor:
        """Bool (B, T), True where the history holds an event; (B, 0) without history.

        (1, T), and so are the events below, where the batch says that all rows have the same history.
        """
        if not self._history:
            return self.fields.new_zeros(self.fields.shape[0], 0, dtype=torch.bool)
        return (torch.stack([ids for ids, _ in self._past()]) != PADDING).any(dim=0)

    def history(self, field: str) -> Tensor:
        """(B, T, d): one history field, event by event, padding zero. Looked up only when asked for."""
        ids, rows = self._found.field(self._history[field])
        embedded: Tensor = self._table(rows)
        return embedded * (ids != PADDING).unsqueeze(-1)

    def events(self) -> Tensor:
        """(B, T, H·d): the H history fields side by side, event by event, padding zero; one lookup for all."""
        ids, rows = (torch.stack(of, dim=2) for of in zip(*self._past(), strict=True))
        embedded: Tensor = self._table(rows)  # (B, T, H, d)
        return (embedded * (ids != PADDING).unsqueeze(-1)).flatten(2)

    def _past(self) -> list[tuple[Tensor, Tensor]]:
        return [self._found.field(place) for place in self._history.values()]


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
        looked_up = Lookup(batch.rows, tuple(self._ids(*part) for part in self._parts(batch)))
        table, found = fetched(self.table, looked_up)
        pooled = found if self.pool_history else found.without(*self._histories)
        fields = pooled.pooled(table)  # (B, lookups, d)
        if self._numerical:
            fields = torch.cat([fields, batch.numerical.unsqueeze(-1) * self.numerical_weight], dim=1)
        past = dict(zip(self._history, range(*self._histories), strict=True))
        return Embedded(fields=fields, lookup=looked_up, _table=table, _found=found, _history=past)

    def _parts(self, batch: Batch) -> list[tuple[list[Tensor], tuple[int, ...]]]:
        """Ids and the fields they are of: of every row and, in a part of their own, of one row that stands for all.

        The history fields run in step: they are one row where all of them are. Two small lookups take longer than one
        of a few more ids: where that is all, every row is looked up.
        """
        groups = self._groups(batch)
        lookups = self.fields[: len(self.offsets)]
        whole = [(groups, tuple(range(len(lookups))))]
        if self.training or not batch.repeated or not batch.rows:
            return whole
        first, last = self._histories
        own, once = own_and_once(lookups, (first, last), batch.repeated)
        columns = sum(1 if place < first else groups[1 + place - first].shape[1] for place in once)
        if self.pool_history and len(batch) * columns < WORTH:
            return whole
        parts = []
        for rows, places in ((len(batch), own), (1, once)):
            single = indices(tuple(place for place in places if place < first), batch.categorical.device)
            lists = [groups[1 + place - first][:rows] for place in places if place >= first]
            if places:
                parts.append(([batch.categorical[:rows].index_select(1, single), *lists], places))
        return parts

    def _ids(self, groups: list[Tensor], fields: tuple[int, ...]) -> Ids:
        """Of the categorical fields among these, (B, how many) or (1, how many), and of each of the others."""
        ids = torch.cat(groups, dim=1).long()  # (B or 1, N)
        lengths = (*[1] * groups[0].shape[1], *(group.shape[1] for group in groups[1:]))  # columns of each field
        lookup = layout(fields, lengths, ids.device)[0]  # (N,): the field each column belongs to
        if not ids.is_cuda and not exporting():
            self._check(ids, lookup)
        if self.training and self.unknown_rate > 0:
            replaced = draws(ids.shape, ids.device) < self.unknown_rate
            ids = ids.masked_fill(replaced & (ids != PADDING), UNKNOWN)
        return Ids(ids=ids, rows=ids + self.offsets.index_select(0, lookup), lengths=lengths, fields=fields)

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
        wrong = (ids < 0) | (ids >= self.sizes.index_select(0, lookup))
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
            unknown = draws(domain.shape, domain.device) < self.unknown_rate
        else:
            unknown = ~self.seen[domain]
        return domain.masked_fill(unknown, self.domains)

    def tell(self) -> None:
        """Let all processes that train together know which domains any of them has met."""
        self.seen.copy_(total(self.seen.int()) > 0)


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
