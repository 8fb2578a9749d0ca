"""A pooled lookup whose gradient is made once per row of the table, not once per id."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable


def grouped(rows: Tensor, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """The places of equal rows of a table put together.

    Args:
        rows: (N,) int, N at least 1.
        size: how many rows the table has.

    Returns:
        the different rows (U,) int64, ascending; the places (N,) int64 that hold them, those of one row side by side
        and in their order; where the places of each row begin (U,) int64.
    """
    ordered, places = torch.sort(rows.int() if size < 2**31 else rows, stable=True)  # of 32 bits: a radix sort
    different, counts = torch.unique_consecutive(ordered, return_counts=True)
    starts = torch.zeros_like(counts)
    torch.cumsum(counts[:-1], 0, out=starts[1:])
    return different.long(), places, starts


def sparse_gradient(rows: Tensor, values: Tensor, shape: torch.Size) -> Tensor:
    """A coalesced gradient of a table: ascending rows (U,) and their values (U, d)."""
    return torch.sparse_coo_tensor(rows.unsqueeze(0), values, shape, is_coalesced=True, check_invariants=False)


def pooled_sum(table: Tensor, rows: Tensor, lengths: list[int], weights: Tensor | None, *, sparse: bool) -> Tensor:
    """The weighted sums of the rows of each bag: (B·L, d).

    On the CPU the sparse gradient comes coalesced: it is summed straight from the gradient of the bags, which
    :func:`torch.nn.functional.embedding_bag` would first write out for each of the B·N ids.

    Args:
        table: (V, d).
        rows: (B, N) int64; a bag is a run of neighbouring columns.
        lengths: of the L bags, N in all.
        weights: (B, N), without a gradient; None is 1 for all.
        sparse: whether the table's gradient is a sparse tensor.
    """
    if sparse and not rows.is_cuda and rows.numel():
        pooled: Tensor = _PooledSum.apply(table, rows, lengths, weights)  # type: ignore[no-untyped-call]
        return pooled
    return _embedding_bag(table, rows, lengths, weights, sparse=sparse)


def _embedding_bag(table: Tensor, rows: Tensor, lengths: list[int], weights: Tensor | None, *, sparse: bool) -> Tensor:
    batch, columns = rows.shape
    if columns == len(lengths):
        starts = torch.arange(batch * columns, device=rows.device)
    else:
        firsts = torch.tensor([0, *lengths[:-1]], device=rows.device).cumsum(0)
        starts = (torch.arange(batch, device=rows.device).unsqueeze(1) * columns + firsts).flatten()
    flat = None if weights is None else weights.flatten()
    return F.embedding_bag(rows.flatten(), table, starts, mode="sum", per_sample_weights=flat, sparse=sparse)


class _PooledSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, table: Tensor, rows: Tensor, lengths: list[int], weights: Tensor | None) -> Tensor:
        ctx.save_for_backward(rows, weights)
        ctx.shape, ctx.lengths = table.shape, lengths
        return _embedding_bag(table.detach(), rows, lengths, weights, sparse=False)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        rows, weights = ctx.saved_tensors
        different, places, starts = grouped(rows.flatten(), ctx.shape[0])
        bags = _bags(places, ctx.lengths)
        flat = None if weights is None else weights.flatten()[places]
        values = F.embedding_bag(bags, gradient.contiguous(), starts, mode="sum", per_sample_weights=flat)
        return sparse_gradient(different, values, ctx.shape), None, None, None


def _bags(places: Tensor, lengths: list[int]) -> Tensor:
    """The bag, 0 … B·L - 1, of each place, 0 … B·N - 1."""
    bags, columns = len(lengths), sum(lengths)
    if bags == columns:
        return places
    bag_of_column = torch.arange(bags).repeat_interleave(torch.tensor(lengths), output_size=columns)
    row = places.div(columns, rounding_mode="floor")
    return row * bags + bag_of_column[places - row * columns]
