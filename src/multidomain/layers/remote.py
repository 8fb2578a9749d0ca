"""A table whose rows lie in several processes: those that a batch has ids of are fetched, then read like any table."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .lookup import Lookup, Table


class RemoteTable(nn.Module, ABC):
    """Gives rows of a table (V, d) that this process does not hold. All processes ask together, each for its own.

    A row is updated as soon as its gradient is known, in the backward pass.
    """

    @abstractmethod
    def forward(self, rows: Tensor) -> Tensor:
        """Rows (n,) int64, each once, n of 0 too -> their vectors (n, d), through which their gradient goes back."""

    @abstractmethod
    def anchor(self) -> Tensor:
        """A scalar 0 to add to a loss, so that the gradient of what was last fetched is asked for in every process.

        A process whose rows of a batch are none, or need nothing of the table, must still take part.
        """

    @abstractmethod
    def set_rate(self, factor: float) -> None:
        """The learning rate of rows looked up from now on, as a factor of the one training begins with."""


@dataclass(frozen=True)
class FetchedRows:
    """Rows of a table, read by their places among themselves as ``nn.Embedding`` is by its rows.

    Attributes:
        weight: (n, d).
    """

    weight: Tensor
    sparse: bool = False  # their gradient is dense: each of them was asked for

    @property
    def embedding_dim(self) -> int:
        """d."""
        return self.weight.shape[1]

    def __call__(self, places: Tensor) -> Tensor:
        """Places (...) -> (..., d)."""
        return F.embedding(places, self.weight)


def fetched(table: Table | RemoteTable, lookup: Lookup) -> tuple[Table, Lookup]:
    """The table to read and the look-up in it: both as they are, unless the table lies elsewhere."""
    if not isinstance(table, RemoteTable):
        return table, lookup
    rows = torch.cat([part.rows.flatten() for part in lookup.parts])
    different, places = torch.unique(rows, return_inverse=True)
    found = places.split([part.rows.numel() for part in lookup.parts])
    parts = [replace(part, rows=at.view_as(part.rows)) for part, at in zip(lookup.parts, found, strict=True)]
    return FetchedRows(table(different)), Lookup(lookup.rows, tuple(parts))
