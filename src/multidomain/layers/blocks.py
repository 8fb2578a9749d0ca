"""Where the rows of each group of a batch lie, so that a product meets several small groups at once.

A product of forty rows with the weights of their domain is too small for several cores, and a hundred of them are a
hundred calls. Groups with about as many rows are put side by side, the smaller ones filled up to the largest: a block,
which is one batched product, its groups divided among the cores.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

SMALL = 128  # rows of a group; larger ones are products of their own
TOGETHER = 8  # groups of a block at most: their weights stay in the cache from one operation to the next
SPARE = 8  # the least rows of a block's groups are at most an eighth, and two rows, below the most


class Block(NamedTuple):
    """Rows that lie together: of each of these groups as many, from ``start``."""

    groups: tuple[int, ...]
    start: int
    rows: int

    def of(self, tensor: Tensor) -> Tensor:
        """Its rows of a tensor (B, n): (rows, n) of one group, (k, rows, n) of several."""
        groups = len(self.groups)
        own = tensor.narrow(0, self.start, groups * self.rows)
        return own if groups == 1 else own.view(groups, self.rows, -1)


@dataclass(frozen=True)
class Blocks:
    """The blocks of a batch, side by side.

    Attributes:
        each: the blocks, in the order they lie.
        order: (B',) of each row, where it is among the sorted rows; what fills a block up repeats a row of its group.
            None: the rows lie as they are sorted.
        places: (B,) of each sorted row, where it lies.
    """

    each: list[Block]
    order: Tensor | None = None
    places: Tensor | None = None

    @classmethod
    def sorted(cls, counts: Sequence[int]) -> Blocks:
        """Each group by itself, as many rows as it has: ``counts`` of all groups, whose rows are sorted."""
        starts = itertools.accumulate(counts, initial=0)
        return cls(
            [
                Block((group,), start, rows)
                for group, (start, rows) in enumerate(zip(starts, counts, strict=False))
                if rows
            ]
        )

    @classmethod
    def together(cls, counts: Sequence[int], device: torch.device) -> Blocks:
        """Small groups put together, if there are several."""
        groups = list(_alike(counts))
        if all(len(block) == 1 for block in groups):
            return cls.sorted(counts)
        rows = [max(counts[group] for group in block) for block in groups]
        starts = itertools.accumulate((len(block) * most for block, most in zip(groups, rows, strict=True)), initial=0)
        each = [Block(*block) for block in zip(groups, starts, rows, strict=False)]
        order, places = _layout(each, counts)
        return cls(each, order.to(device), places.to(device))

    @property
    def groups(self) -> list[int]:
        """The groups that have rows, in the order they lie."""
        return [group for block in self.each for group in block.groups]

    def enter(self, x: Tensor) -> Tensor:
        """(B, …) sorted -> (B', …) as they lie. A gradient that comes back must be zero where rows were filled up."""
        if self.order is None:
            return x
        laid: Tensor = _Enter.apply(x, self.order, self.places)  # type: ignore[no-untyped-call]
        return laid

    def leave(self, x: Tensor) -> Tensor:
        """(B', …) as they lie -> (B, …) sorted."""
        if self.places is None:
            return x
        own: Tensor = _Leave.apply(x, self.places)  # type: ignore[no-untyped-call]
        return own


def _alike(counts: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """Groups that have rows, those with about as many together."""
    block: list[int] = []
    for group in sorted((group for group, rows in enumerate(counts) if rows), key=lambda group: counts[group]):
        rows = counts[group]
        if block and (len(block) == TOGETHER or rows > SMALL or rows > counts[block[0]] * (1 + 1 / SPARE) + 2):
            yield tuple(block)
            block = []
        block.append(group)
    if block:
        yield tuple(block)


def _layout(each: list[Block], counts: Sequence[int]) -> tuple[Tensor, Tensor]:
    """``order`` and ``places`` of :class:`Blocks`."""
    lying = [
        (group, block.start + number * block.rows, block.rows)
        for block in each
        for number, group in enumerate(block.groups)
    ]
    sorted_starts = list(itertools.accumulate(counts, initial=0))
    begins, lengths, owned, starts = torch.tensor(
        [(begin, rows, counts[group], sorted_starts[group]) for group, begin, rows in lying]
    ).unbind(1)
    which = torch.arange(len(lying)).repeat_interleave(lengths)  # (B',) the number of each row's group
    number = torch.arange(len(which)) - begins[which]  # and of the row in it
    own = number < owned[which]
    order = starts[which] + torch.where(own, number, 0)
    places = torch.empty(sum(counts), dtype=torch.int64)
    places[order[own]] = own.nonzero()[:, 0]
    return order, places


class _Enter(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, order: Tensor, places: Tensor) -> Tensor:
        ctx.save_for_backward(places)
        return x.index_select(0, order)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (places,) = ctx.saved_tensors
        return gradient.index_select(0, places), None, None


class _Leave(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, places: Tensor) -> Tensor:
        ctx.save_for_backward(places)
        ctx.rows = len(x)
        return x.index_select(0, places)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (places,) = ctx.saved_tensors
        return gradient.new_zeros(ctx.rows, *gradient.shape[1:]).index_copy_(0, places, gradient), None
