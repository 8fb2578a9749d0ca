"""The ids of a batch and what any table of all vocabularies gives for them.

A field that holds the same in every row, as the user's do where candidates are ranked, is looked up and pooled for one.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from typing import Protocol

import torch
from torch import Tensor

from ..inputs import PADDING
from .exporting import exporting
from .exporting import pooled as exported_pooled
from .pooling import pooled_sum


class Table(Protocol):
    """Vectors (V, d) that are read by row, as of ``nn.Embedding``."""

    @property
    def weight(self) -> Tensor:
        """(V, d)."""

    @property
    def embedding_dim(self) -> int:
        """d."""

    @property
    def sparse(self) -> bool:
        """Whether the gradient is a sparse tensor."""

    def __call__(self, rows: Tensor, /) -> Tensor:
        """(...) -> (..., d)."""


@dataclass(frozen=True)
class Ids:
    """The ids of some fields, "unknown" drawn, and where they lie in a table of all vocabularies.

    Attributes:
        ids: (B, N), local to their vocabularies: a column per categorical field, those of each history field and bag;
            or (1, N) of fields that hold the same in every row.
        rows: the row of each id, of the same shape.
        lengths: how many of the N columns each field has, 1 for a categorical one.
        fields: the place of each among all fields looked up, in their order.
    """

    ids: Tensor
    rows: Tensor
    lengths: tuple[int, ...]
    fields: tuple[int, ...]

    @property
    def present(self) -> Tensor:
        """Bool, of the shape of the ids, False for padding."""
        return self.ids != PADDING

    def without(self, first: int, last: int) -> Ids:
        """Less the fields in the places ``first`` to ``last - 1``, which are adjacent."""
        start, end = bisect_left(self.fields, first), bisect_left(self.fields, last)
        lengths, fields = (of[:start] + of[end:] for of in (self.lengths, self.fields))
        before, after = sum(self.lengths[:start]), sum(self.lengths[:end])
        ids, rows = (torch.cat([of[:, :before], of[:, after:]], dim=1) for of in (self.ids, self.rows))
        return Ids(ids=ids, rows=rows, lengths=lengths, fields=fields)

    def pooled(self, table: Table) -> Tensor:
        """(B or 1, number of fields, width of the table): the mean over the ids present of each field."""
        batch, columns = self.rows.shape
        if columns == 0:
            return table.weight.new_zeros(batch, len(self.lengths), table.embedding_dim)
        weights = self._weights(table.weight.dtype)
        if exporting():
            return exported_pooled(table.weight, self.rows, self.lengths, weights)
        firsts = layout(self.fields, self.lengths, self.rows.device)[1]
        pooled = pooled_sum(table.weight, self.rows, firsts, weights, sparse=table.sparse)
        return pooled.view(batch, len(self.lengths), table.embedding_dim)

    def _weights(self, kind: torch.dtype) -> Tensor:
        """Of the shape of the ids: 1 / ids present of the field, 0 for padding."""
        weights = self.present.to(kind)
        single = next((at for at, length in enumerate(self.lengths) if length != 1), len(self.lengths))
        if single == len(self.lengths):
            return weights
        lists = weights[:, single:].split_with_sizes(self.lengths[single:], 1)
        means = [one / one.sum(1, keepdim=True).clamp_(min=1) for one in lists]
        return torch.cat([weights[:, :single], *means], dim=1)


@lru_cache(maxsize=256)
def own_and_once(
    lookups: tuple[str, ...], histories: tuple[int, int], repeated: frozenset[str]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The places of the fields that each row has its own of, and of those that one row stands for."""
    once = {place for place, name in enumerate(lookups) if name in repeated}
    past = set(range(*histories))
    once -= set() if past <= once else past
    return tuple(place for place in range(len(lookups)) if place not in once), tuple(sorted(once))


def layout(fields: tuple[int, ...], lengths: tuple[int, ...], device: torch.device) -> tuple[Tensor, Tensor]:
    """The field that each of the N columns belongs to (N,), and the first column of each field."""
    return (_layout.__wrapped__ if exporting() else _layout)(fields, lengths, device)


@lru_cache(maxsize=256)
def _layout(fields: tuple[int, ...], lengths: tuple[int, ...], device: torch.device) -> tuple[Tensor, Tensor]:
    of_column = tuple(field for field, length in zip(fields, lengths, strict=True) for _ in range(length))
    return indices(of_column, device), indices((0, *accumulate(lengths))[:-1], device)


def indices(numbers: tuple[int, ...], device: torch.device) -> Tensor:
    """int64 (n,), made once; they are not to be written to."""
    if exporting():  # what a graph is made of is not to be met by batches
        return torch.tensor(numbers, dtype=torch.int64, device=device)
    return _indices(numbers, device)


@lru_cache(maxsize=256)
def _indices(numbers: tuple[int, ...], device: torch.device) -> Tensor:
    with torch.inference_mode(False):  # made while scoring, they may be used in training
        return torch.tensor(numbers, dtype=torch.int64, device=device)


@lru_cache(maxsize=256)
def _order(parts: tuple[tuple[int, ...], ...]) -> tuple[int, ...]:
    """Where among the fields of all parts, one part behind the other, the field of each place is."""
    places = [place for fields in parts for place in fields]
    return tuple(sorted(range(len(places)), key=places.__getitem__))


@dataclass(frozen=True)
class Lookup:
    """The ids of a batch: any table of all vocabularies reads it.

    Attributes:
        rows: B.
        parts: of every row; and, where the batch has such, one row of the fields that hold the same in all of them.
    """

    rows: int
    parts: tuple[Ids, ...]

    @property
    def ids(self) -> Tensor:
        """(B, N): a column per categorical field, those of each history field and bag."""
        if len(self.parts) == 1:
            return self.parts[0].ids.expand(self.rows, -1)
        fields = sorted(place for part in self.parts for place in part.fields)
        return torch.cat([self.field(place)[0].expand(self.rows, -1) for place in fields], dim=1)

    def field(self, place: int) -> tuple[Tensor, Tensor]:
        """Of one field, by its place, ids and rows: (B, its columns) each, or (1, its columns)."""
        part = next(part for part in self.parts if place in part.fields)
        at = part.fields.index(place)
        start, end = sum(part.lengths[:at]), sum(part.lengths[: at + 1])
        return part.ids[:, start:end], part.rows[:, start:end]

    def without(self, first: int, last: int) -> Lookup:
        """Less the fields in the places ``first`` to ``last - 1``."""
        return Lookup(self.rows, tuple(part.without(first, last) for part in self.parts))

    def pooled(self, table: Table) -> Tensor:
        """(B, number of fields looked up, width of the table): the mean over the ids present of each field."""
        if len(self.parts) == 1:
            return self.parts[0].pooled(table).expand(self.rows, -1, -1)
        pooled = torch.cat([part.pooled(table).expand(self.rows, -1, -1) for part in self.parts], dim=1)
        return pooled.index_select(1, indices(_order(tuple(part.fields for part in self.parts)), pooled.device))
