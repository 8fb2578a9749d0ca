"""Products of sorted rows with the weights of their groups: one per group present, forward and backward.

Autograd's own way, a node per group, ends in stacking the gradients of all groups, present or not, and keeps every
``W ⊗ W_p`` of STAR until the backward pass. Here a layer is one node. It makes ``W ⊗ W_p`` again when it goes back, in
one piece of memory for all groups, and gives a gradient to the groups that have rows alone.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .pooling import sparse_gradient
from .products import outer, times


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
    output: Tensor = _Grouped.apply(x, counts, weight, bias, sparse, torch.is_grad_enabled())  # type: ignore[no-untyped-call]
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
    output: Tensor = _Star.apply(x, counts, weight, bias, *private, sparse, torch.is_grad_enabled())  # type: ignore[no-untyped-call]
    return output


class _Grouped(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, counts: Sequence[int], weight: Tensor, bias: Tensor, sparse: bool, training: bool
    ) -> Tensor:
        present = _present(counts)
        x, *private = _as_computed(len(present), x, weight, bias)
        output = x.new_empty(len(x), weight.shape[2])
        by_group = zip(*(_parts(part, present) for part in private), _rows(output, counts), strict=True)
        start = 0
        for W, b, place in by_group:
            times(x, start, len(place), W, place, b, training=training)
            start += len(place)
        ctx.save_for_backward(x, weight)
        ctx.counts, ctx.sparse = counts, sparse
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        needs_x, _, needs_weight, needs_bias, *_ = ctx.needs_input_grad
        counts, present, of_x = ctx.counts, _present(ctx.counts), torch.empty_like(x) if needs_x else None
        of_weight = _Gradients(weight, present, sparse=ctx.sparse) if needs_weight else None
        of_bias = _Gradients(weight[:, 0], present, sparse=ctx.sparse) if needs_bias else None
        gradients = _rows(gradient, counts)
        starts = list(itertools.accumulate((len(g) for g in gradients), initial=0))
        if of_x is not None:
            for start, W, place in zip(starts, _parts(weight, present), _rows(of_x, counts), strict=False):
                times(gradient, start, len(place), W.to(gradient.dtype).t(), place)
        if of_weight is not None:
            for start, g, place in zip(starts, gradients, of_weight.parts, strict=False):
                product = outer(x, gradient, start, len(g), place)
                if product is not place:
                    place.copy_(product)
        if of_bias is not None:
            for g, place in zip(gradients, of_bias.parts, strict=True):
                torch.sum(g, 0, dtype=weight.dtype, out=place)
        return of_x, None, *(one.whole() if one is not None else None for one in (of_weight, of_bias)), None, None


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
        training: bool,
    ) -> Tensor:
        M, W_star = len(domain_weight), torch.empty_like(weight)
        b_star = torch.cat([domain_bias + bias, bias.unsqueeze(0)])
        x, b_star = _as_computed(len(_present(counts)), x, b_star)
        output = x.new_empty(len(x), weight.shape[1])
        known, b_star_p = _parts(domain_weight, _present(counts[:M])), _parts(b_star, _present(counts))
        start = 0
        for W_p, b_p, place in itertools.zip_longest(known, b_star_p, _rows(output, counts)):
            W = weight if W_p is None else torch.mul(weight, W_p, out=W_star)  # the unknown domain is the last
            times(x, start, len(place), W.to(x.dtype), place, b_p, training=training)
            start += len(place)
        ctx.save_for_backward(x, weight, domain_weight)
        ctx.counts, ctx.sparse = counts, sparse
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, domain_weight = ctx.saved_tensors
        M, W_star = len(domain_weight), torch.empty_like(weight)
        counts, known = ctx.counts, _present(ctx.counts[:M])
        of_W_p = _Gradients(domain_weight, known, sparse=ctx.sparse)
        of_b_p = _Gradients(domain_weight[:, 0], known, sparse=ctx.sparse)
        of_x, of_weight = torch.empty_like(x), torch.zeros_like(weight)
        by_row = (_rows(gradient, counts), _rows(of_x, counts))
        by_domain = (_parts(domain_weight, known), of_W_p.parts, of_b_p.parts)
        start = 0
        for g, place, W_p, of_one, of_b in zip(*(parts[: len(known)] for parts in by_row), *by_domain, strict=True):
            W = torch.mul(weight, W_p, out=W_star)
            times(gradient, start, len(g), W.to(g.dtype).t(), place)
            product = outer(x, gradient, start, len(g), of_one).to(weight.dtype)  # the gradient of W*_p
            of_weight.addcmul_(product, W_p)
            torch.mul(product, weight, out=of_one)
            torch.sum(g, 0, dtype=weight.dtype, out=of_b)
            start += len(g)
        if len(by_row[0]) > len(known):  # the unknown domain
            g, place = (parts[-1] for parts in by_row)
            times(gradient, start, len(g), weight.to(g.dtype).t(), place)
            of_weight += outer(x, gradient, start, len(g), W_star)
        of_bias = gradient.sum(0, dtype=weight.dtype)
        return of_x, None, of_weight, of_bias, of_W_p.whole(), of_b_p.whole(), None, None


class _Gradients:
    """The gradient of a tensor of G groups: written group by group, then given as a whole.

    Args:
        like: (G, …), for shape, type and device.
        present: the groups that have rows; the gradient of the others is zero.
        sparse: hold those of the groups with rows alone.

    Attributes:
        parts: where the gradient of each group with rows is to be written.
    """

    def __init__(self, like: Tensor, present: list[int], *, sparse: bool) -> None:
        self._shape, self._sparse, self._present = like.shape, sparse, present
        groups = len(present) if sparse else len(like)
        empty = like.new_empty if groups == len(present) else like.new_zeros
        self._values = empty(groups, *like.shape[1:])
        self.parts = _parts(self._values, list(range(groups)) if sparse else present)

    def whole(self) -> Tensor:
        """(G, …)."""
        if not self._sparse:
            return self._values
        present = torch.tensor(self._present, dtype=torch.int64, device=self._values.device)
        return sparse_gradient(present, self._values, self._shape)


def _present(counts: Sequence[int]) -> list[int]:
    """The groups that have rows."""
    return [group for group, count in enumerate(counts) if count]


def _rows(tensor: Tensor, counts: Sequence[int]) -> tuple[Tensor, ...]:
    """Views of the rows of each group that has some, in one call: one for each would take as long as small products."""
    return torch.split(tensor, [count for count in counts if count])


def _parts(tensor: Tensor, groups: Sequence[int]) -> list[Tensor]:
    """Views of the parts (…) of these groups in a tensor (G, …)."""
    if 2 * len(groups) < len(tensor):
        return [tensor.select(0, group) for group in groups]
    every = tensor.unbind(0)
    return [every[group] for group in groups]


def _as_computed(groups: int, *tensors: Tensor) -> list[Tensor]:
    """In the precision of products: autocast's where it is on, as it does not reach what is written in place.

    On the CPU several groups are computed in float32: a bf16 kernel is made for each number of rows, no batch has the
    same ones, and making a kernel takes longer than a product.
    """
    device = tensors[0].device.type
    dtype = tensors[0].dtype
    if torch.is_autocast_enabled(device):
        dtype = torch.float32 if device == "cpu" and groups > 1 else torch.get_autocast_dtype(device)
    return [tensor.to(dtype) for tensor in tensors]
