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
    """A coalesced gradient of a table: ascending rows (U,) and their values (U, …)."""
    return torch.sparse_coo_tensor(rows.unsqueeze(0), values, shape, is_coalesced=True, check_invariants=False)


def pooled_sum(table: Tensor, rows: Tensor, firsts: Tensor, weights: Tensor | None, *, sparse: bool) -> Tensor:
    """The weighted sums of the rows of each bag: (B·L, d).

    On the CPU the sparse gradient comes coalesced: it is summed straight from the gradient of the bags, which
    :func:`torch.nn.functional.embedding_bag` would first write out for each of the B·N ids.

    Args:
        table: (V, d).
        rows: (B, N) int64; a bag is a run of neighbouring columns.
        firsts: (L,) int64, the first column of each bag, ascending from 0.
        weights: (B, N), without a gradient; None is 1 for all.
        sparse: whether the table's gradient is a sparse tensor.
    """
    if sparse and not rows.is_cuda and rows.numel():
        pooled: Tensor = _PooledSum.apply(table, rows, firsts, weights)  # type: ignore[no-untyped-call]
        return pooled
    return _embedding_bag(table, rows, firsts, weights, sparse=sparse)


def _embedding_bag(table: Tensor, rows: Tensor, firsts: Tensor, weights: Tensor | None, *, sparse: bool) -> Tensor:
    columns = rows.shape[1]
    starts = (torch.arange(0, rows.numel(), columns, device=rows.device).unsqueeze(1) + firsts).flatten()
    flat = None if weights is None else weights.flatten()
    return F.embedding_bag(rows.flatten(), table, starts, mode="sum", per_sample_weights=flat, sparse=sparse)


class _PooledSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, table: Tensor, rows: Tensor, firsts: Tensor, weights: Tensor | None) -> Tensor:
        ctx.save_for_backward(rows, firsts, weights)
        ctx.shape = table.shape
        return _embedding_bag(table.detach(), rows, firsts, weights, sparse=False)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        rows, firsts, weights = ctx.saved_tensors
        different, places, starts = grouped(rows.flatten(), ctx.shape[0])
        bags = _bags(places, firsts, rows.shape[1])
        flat = None if weights is None else weights.flatten()[places]
        values = F.embedding_bag(bags, gradient.contiguous(), starts, mode="sum", per_sample_weights=flat)
        return sparse_gradient(different, values, ctx.shape), None, None, None


def _bags(places: Tensor, firsts: Tensor, columns: int) -> Tensor:
    """The bag, 0 … B·L - 1, of each place, 0 … B·N - 1."""
    every = torch.arange(columns)
    if torch.equal(firsts, every):
        return places
    bag_of_column = torch.searchsorted(firsts, every, right=True) - 1  # past bags without columns
    row = places.div(columns, rounding_mode="floor")
    return row * len(firsts) + bag_of_column[places - row * columns]
