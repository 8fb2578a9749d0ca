"""Products of sorted rows with the weights of their groups: one per group present, forward and backward.

Autograd's own way, a node per group, ends in stacking the gradients of all groups, present or not, and keeps every
``W ⊗ W_p`` of STAR until the backward pass. Here a layer is one node. It makes ``W ⊗ W_p`` again when it goes back, in
one piece of memory for all groups, and gives a gradient to the groups that have rows alone.
"""

from __future__ import annotations

from collections.abc import Sequence
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
        split = [part.split_with_sizes(counts) for part in (x, output)]
        for rows, place, W, b in zip(*split, *(part.unbind(0) for part in private), strict=True):
            if len(rows):
                torch.addmm(b, rows, W, out=place)
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
        gradients = gradient.split_with_sizes(ctx.counts)
        if of_x is not None:
            weights = weight.to(x.dtype).unbind(0)
            for g, W, place in zip(gradients, weights, of_x.split_with_sizes(ctx.counts), strict=True):
                if len(g):
                    torch.mm(g, W.t(), out=place)
        if of_weight is not None:
            for rows, g, place in zip(x.split_with_sizes(ctx.counts), gradients, of_weight.places, strict=True):
                if len(g):
                    _product(rows.t(), g, place)
        if of_bias is not None:
            _sums(gradients, of_bias.places)
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
        M, W_p, W_star = len(domain_weight), domain_weight.unbind(0), torch.empty_like(weight)
        b_star = torch.cat([domain_bias + bias, bias.unsqueeze(0)])
        x, b_star = _as_computed(x, b_star)
        output = x.new_empty(len(x), weight.shape[1])
        parts = zip(x.split_with_sizes(counts), output.split_with_sizes(counts), b_star.unbind(0), strict=True)
        for p, (rows, place, b) in enumerate(parts):
            if len(rows):
                W = torch.mul(weight, W_p[p], out=W_star) if p < M else weight
                torch.addmm(b, rows, W.to(x.dtype), out=place)
        ctx.save_for_backward(x, weight, domain_weight)
        ctx.counts, ctx.sparse = counts, sparse
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, domain_weight = ctx.saved_tensors
        M, W_p, W_star = len(domain_weight), domain_weight.unbind(0), torch.empty_like(weight)
        of_W_p = _Gradients(domain_weight, ctx.counts[:M], sparse=ctx.sparse)
        of_b_p = _Gradients(domain_weight[:, 0], ctx.counts[:M], sparse=ctx.sparse)
        of_x, of_weight = torch.empty_like(x), torch.zeros_like(weight)
        gradients = gradient.split_with_sizes(ctx.counts)
        parts = zip(x.split_with_sizes(ctx.counts), gradients, of_x.split_with_sizes(ctx.counts), strict=True)
        for p, (rows, g, place) in enumerate(parts):
            if len(rows) and p < M:
                W = torch.mul(weight, W_p[p], out=W_star)
                torch.mm(g, W.to(g.dtype).t(), out=place)
                product = _product(rows.t(), g, of_W_p.places[p])  # the gradient of W*_p
                of_weight.addcmul_(product, W_p[p])
                product.mul_(weight)
            elif len(rows):
                torch.mm(g, weight.to(g.dtype).t(), out=place)
                of_weight += rows.t() @ g
        _sums(gradients[:M], of_b_p.places)
        of_bias = gradient.sum(0, dtype=weight.dtype)
        return of_x, None, of_weight, of_bias, of_W_p.whole(), of_b_p.whole(), None


class _Gradients:
    """The gradient of a tensor of G groups: written group by group, then given as a whole.

    Args:
        like: (G, …), for shape, type and device.
        counts: rows of each group; the gradient of one without rows is zero.
        sparse: hold those of the groups with rows alone.

    Attributes:
        places: where the gradient of each group is to be written; in a sparse one, those without rows have no place.
    """

    def __init__(self, like: Tensor, counts: Sequence[int], *, sparse: bool) -> None:
        self._shape, self._sparse = like.shape, sparse
        self._present = [group for group, count in enumerate(counts) if count]
        groups = len(self._present) if sparse else len(like)
        empty = like.new_empty if groups == len(self._present) else like.new_zeros
        self._values = empty(groups, *like.shape[1:])
        self.places: list[Tensor] = list(self._values.unbind(0))
        if sparse:
            found = iter(self.places)
            nowhere = like.new_empty(0)
            self.places = [next(found) if count else nowhere for count in counts]

    def whole(self) -> Tensor:
        """(G, …)."""
        if not self._sparse:
            return self._values
        present = torch.tensor(self._present, dtype=torch.int64, device=self._values.device)
        return sparse_gradient(present, self._values, self._shape)


def _sums(parts: Sequence[Tensor], places: Sequence[Tensor]) -> None:
    for part, place in zip(parts, places, strict=True):
        if len(part):
            torch.sum(part, 0, dtype=place.dtype, out=place)


def _product(a: Tensor, b: Tensor, place: Tensor) -> Tensor:
    """``place = a @ b``, whatever its precision."""
    return torch.mm(a, b, out=place) if a.dtype == place.dtype else place.copy_(a @ b)


def _as_computed(x: Tensor, *others: Tensor) -> list[Tensor]:
    """In the precision of products: autocast's where it is on, as it does not reach what is written in place."""
    device = x.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
    return [tensor.to(dtype) for tensor in (x, *others)]
