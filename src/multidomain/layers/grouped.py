"""Products of sorted rows with the weights of their groups: one per group present, forward and backward.

Autograd's own way, a node per group, ends in stacking the gradients of all groups, present or not, and keeps every
``W ⊗ W_p`` of STAR until the backward pass. Here a layer is one node. It makes ``W ⊗ W_p`` again when it goes back, in
one piece of memory for all groups, and gives a gradient to the groups that have rows alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .pooling import sparse_gradient


def grouped_linear(x: Tensor, counts: Sequence[int], weight: Tensor, bias: Tensor, *, sparse: bool = False) -> Tensor:
    """``x[rows of g] @ weight[g] + bias[g]`` for each group g.

    Args:
        x: (B, i), sorted by group.
        counts: rows of each of the G groups.
        weight: (G, i, o).
        bias: (G, o).
        sparse: give weight and bias sparse gradients, of the groups that have rows.

    Returns:
        (B, o), sorted by group.
    """
    output: Tensor = _Grouped.apply(x, counts, weight, bias, sparse)  # type: ignore[no-untyped-call]
    return output


def star_linear(
    x: Tensor,
    counts: Sequence[int],
    weight: Tensor,
    bias: Tensor,
    domain_weight: Tensor,
    domain_bias: Tensor,
    *,
    sparse: bool = False,
) -> Tensor:
    """``x[rows of p] @ (weight ⊗ domain_weight[p]) + (bias + domain_bias[p])``; the last group meets weight and bias.

    Args:
        x: (B, i), sorted by domain.
        counts: rows of each of the M domains, and of the unknown one.
        weight: W (i, o).
        bias: b (o,).
        domain_weight: W_p (M, i, o).
        domain_bias: b_p (M, o).
        sparse: give W_p and b_p sparse gradients, of the domains that have rows.

    Returns:
        (B, o), sorted by domain.
    """
    private = (domain_weight, domain_bias)
    output: Tensor = _Star.apply(x, counts, weight, bias, *private, sparse)  # type: ignore[no-untyped-call]
    return output


class _Grouped(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, counts: Sequence[int], weight: Tensor, bias: Tensor, sparse: bool) -> Tensor:
        x, *private = _as_computed(x, weight, bias)
        output = x.new_empty(len(x), weight.shape[2])
        for group, start, count in _present(counts):
            W, b = (part.select(0, group) for part in private)
            torch.addmm(b, x.narrow(0, start, count), W, out=output.narrow(0, start, count))
        ctx.save_for_backward(x, weight)
        ctx.counts, ctx.sparse = counts, sparse
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        needs_x, _, needs_weight, needs_bias, _ = ctx.needs_input_grad
        of_x = torch.empty_like(x) if needs_x else None
        of_weight = _Gradients(weight, ctx.counts, sparse=ctx.sparse) if needs_weight else None
        of_bias = _Gradients(weight[:, 0], ctx.counts, sparse=ctx.sparse) if needs_bias else None
        for group, start, count in _present(ctx.counts):
            g = gradient.narrow(0, start, count)
            if of_x is not None:
                torch.mm(g, weight.select(0, group).to(g.dtype).t(), out=of_x.narrow(0, start, count))
            if of_weight is not None:
                _product(x.narrow(0, start, count).t(), g, of_weight[group])
            if of_bias is not None:
                torch.sum(g, 0, dtype=weight.dtype, out=of_bias[group])
        return of_x, None, *(one.whole() if one is not None else None for one in (of_weight, of_bias)), None


class _Star(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        counts: Sequence[int],
        weight: Tensor,
        bias: Tensor,
        domain_weight: Tensor,
        domain_bias: Tensor,
        sparse: bool,
    ) -> Tensor:
        M, W_star = len(domain_weight), torch.empty_like(weight)
        b_star = torch.cat([domain_bias + bias, bias.unsqueeze(0)])
        x, b_star = _as_computed(x, b_star)
        output = x.new_empty(len(x), weight.shape[1])
        for p, start, count in _present(counts):
            W = torch.mul(weight, domain_weight.select(0, p), out=W_star) if p < M else weight
            rows, place = (part.narrow(0, start, count) for part in (x, output))
            torch.addmm(b_star.select(0, p), rows, W.to(x.dtype), out=place)
        ctx.save_for_backward(x, weight, domain_weight)
        ctx.counts, ctx.sparse = counts, sparse
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, domain_weight = ctx.saved_tensors
        M, W_star = len(domain_weight), torch.empty_like(weight)
        of_W_p = _Gradients(domain_weight, ctx.counts[:M], sparse=ctx.sparse)
        of_b_p = _Gradients(domain_weight[:, 0], ctx.counts[:M], sparse=ctx.sparse)
        of_x, of_weight = torch.empty_like(x), torch.zeros_like(weight)
        for p, start, count in _present(ctx.counts):
            rows, g, place = (part.narrow(0, start, count) for part in (x, gradient, of_x))
            if p < M:
                W_p = domain_weight.select(0, p)
                W = torch.mul(weight, W_p, out=W_star)
                torch.mm(g, W.to(g.dtype).t(), out=place)
                product = _product(rows.t(), g, of_W_p[p])  # the gradient of W*_p
                of_weight.addcmul_(product, W_p)
                product.mul_(weight)
                torch.sum(g, 0, dtype=weight.dtype, out=of_b_p[p])
            else:
                torch.mm(g, weight.to(g.dtype).t(), out=place)
                of_weight += rows.t() @ g
        of_bias = gradient.sum(0, dtype=weight.dtype)
        return of_x, None, of_weight, of_bias, of_W_p.whole(), of_b_p.whole(), None


class _Gradients:
    """The gradient of a tensor of G groups: written group by group, then given as a whole.

    Args:
        like: (G, …), for shape, type and device.
        counts: rows of each group; the gradient of one without rows is zero.
        sparse: hold those of the groups with rows alone.
    """

    def __init__(self, like: Tensor, counts: Sequence[int], *, sparse: bool) -> None:
        self._shape, self._sparse = like.shape, sparse
        self._present = [group for group, _, _ in _present(counts)]
        self._place = dict(zip(self._present, range(len(self._present)) if sparse else self._present, strict=True))
        groups = len(self._present) if sparse else len(like)
        empty = like.new_empty if groups == len(self._present) else like.new_zeros
        self._values = empty(groups, *like.shape[1:])

    def __getitem__(self, group: int) -> Tensor:
        """Where the gradient of a group with rows is to be written."""
        return self._values.select(0, self._place[group])

    def whole(self) -> Tensor:
        """(G, …)."""
        if not self._sparse:
            return self._values
        present = torch.tensor(self._present, dtype=torch.int64, device=self._values.device)
        return sparse_gradient(present, self._values, self._shape)


def _present(counts: Sequence[int]) -> list[tuple[int, int, int]]:
    """The groups that have rows: number, first row, rows."""
    ends = accumulate(counts)
    return [(group, end - count, count) for group, (count, end) in enumerate(zip(counts, ends, strict=True)) if count]


def _product(a: Tensor, b: Tensor, place: Tensor) -> Tensor:
    """``place = a @ b``, whatever its precision."""
    return torch.mm(a, b, out=place) if a.dtype == place.dtype else place.copy_(a @ b)


def _as_computed(x: Tensor, *others: Tensor) -> list[Tensor]:
    """In the precision of products: autocast's where it is on, as it does not reach what is written in place."""
    device = x.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
    return [tensor.to(dtype) for tensor in (x, *others)]
