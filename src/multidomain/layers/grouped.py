"""Products of rows with the weights of their groups: those of the groups present alone, forward and backward.

Autograd's own way, a node per group, ends in stacking the gradients of all groups, present or not, and keeps every
``W ⊗ W_p`` of STAR until the backward pass. Here a layer is one node. It makes ``W ⊗ W_p`` again when it goes back, in
one piece of memory for all groups, and gives a gradient to the groups that have rows alone. Which groups meet their
weights in one operation is said by :class:`~multidomain.layers.blocks.Blocks`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .blocks import Block, Blocks
from .pooling import sparse_gradient
from .products import outer, times


def grouped_linear(x: Tensor, blocks: Blocks, weight: Tensor, bias: Tensor, *, sparse: bool = False) -> Tensor:
    """``x[rows of g] @ weight[g] + bias[g]`` for each group g.

    Args:
        x: (B, i), as the blocks lie.
        blocks: the rows of each of the G groups.
        weight: (G, i, o).
        bias: (G, o).
        sparse: give weight and bias sparse gradients, of the groups that have rows.

    Returns:
        (B, o), as the blocks lie.
    """
    output: Tensor = _Grouped.apply(x, blocks, weight, bias, sparse, torch.is_grad_enabled())  # type: ignore[no-untyped-call]
    return output


def star_linear(
    x: Tensor,
    blocks: Blocks,
    weight: Tensor,
    bias: Tensor,
    domain_weight: Tensor,
    domain_bias: Tensor,
    *,
    sparse: bool = False,
) -> Tensor:
    """``x[rows of p] @ (weight ⊗ domain_weight[p]) + (bias + domain_bias[p])``; group M meets weight and bias.

    Args:
        x: (B, i), as the blocks lie.
        blocks: the rows of each of the M domains, and of the unknown one, M.
        weight: W (i, o).
        bias: b (o,).
        domain_weight: W_p (M, i, o).
        domain_bias: b_p (M, o).
        sparse: give W_p and b_p sparse gradients, of the domains that have rows.

    Returns:
        (B, o), as the blocks lie.
    """
    private = (domain_weight, domain_bias)
    output: Tensor = _Star.apply(x, blocks, weight, bias, *private, sparse, torch.is_grad_enabled())  # type: ignore[no-untyped-call]
    return output


class _Grouped(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, blocks: Blocks, weight: Tensor, bias: Tensor, sparse: bool, training: bool
    ) -> Tensor:
        groups = blocks.groups
        (x,) = _as_computed(len(groups), x)
        output, room = x.new_empty(len(x), weight.shape[2]), _room(blocks, weight)
        own, own_bias = (_views(part, groups) for part in (weight, bias))
        for block in blocks.each:
            b = _stacked(own_bias, block).to(x.dtype)
            output = _multiply(x, block, _stacked(own, block, room).to(x.dtype), output, b, training=training)
        ctx.save_for_backward(x, weight)
        ctx.blocks, ctx.sparse = blocks, sparse
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        needs_x, _, needs_weight, needs_bias, *_ = ctx.needs_input_grad
        blocks, groups, of_x = ctx.blocks, ctx.blocks.groups, torch.empty_like(x) if needs_x else None
        of_weight = _Gradients(weight, groups, sparse=ctx.sparse) if needs_weight else None
        own, room = _views(weight, groups), _room(blocks, weight)
        for block in blocks.each:
            if of_x is not None:
                of_x = _multiply_back(gradient, block, _stacked(own, block, room).to(gradient.dtype), of_x)
            if of_weight is not None:
                for product, place in _outer(x, gradient, block, of_weight.of(block), room):
                    if place is not None and product is not place:
                        place.copy_(product)
        of_bias = _sums(gradient, blocks, weight.dtype) if needs_bias else None
        return (
            of_x,
            None,
            None if of_weight is None else of_weight.whole(),
            None if of_bias is None else _spread(of_bias, groups, len(weight), sparse=ctx.sparse),
            None,
            None,
        )


class _Star(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        blocks: Blocks,
        weight: Tensor,
        bias: Tensor,
        domain_weight: Tensor,
        domain_bias: Tensor,
        sparse: bool,
        training: bool,
    ) -> Tensor:
        groups = blocks.groups
        b_star = torch.cat([domain_bias + bias, bias.unsqueeze(0)])
        x, b_star = _as_computed(len(groups), x, b_star)
        output, room = x.new_empty(len(x), weight.shape[1]), _room(blocks, domain_weight)
        W_p, b_star_p = _views(domain_weight, groups), _views(b_star, groups)
        for block in blocks.each:
            W_star = _star(weight, W_p, block, room).to(x.dtype)
            output = _multiply(x, block, W_star, output, _stacked(b_star_p, block), training=training)
        ctx.save_for_backward(x, weight, domain_weight)
        ctx.blocks, ctx.sparse = blocks, sparse
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, domain_weight = ctx.saved_tensors
        blocks, M = ctx.blocks, len(domain_weight)
        known = [group for group in blocks.groups if group < M]
        of_W_p = _Gradients(domain_weight, known, sparse=ctx.sparse)
        of_x, of_weight = torch.empty_like(x), torch.zeros_like(weight)
        W_p, room = _views(domain_weight, known), _room(blocks, domain_weight)
        for block in blocks.each:
            of_x = _multiply_back(gradient, block, _star(weight, W_p, block, room).to(gradient.dtype), of_x)
            products = _outer(x, gradient, block, of_W_p.of(block), room)  # the gradients of W*_p
            for group, (product, place) in zip(block.groups, products, strict=True):
                if place is None:  # the unknown domain
                    of_weight += product
                else:
                    product = product.to(weight.dtype)
                    of_weight.addcmul_(product, W_p[group])
                    torch.mul(product, weight, out=place)
        sums = _sums(gradient, blocks, weight.dtype)
        of_b_p = _spread(sums, blocks.groups, M, sparse=ctx.sparse)
        return of_x, None, of_weight, sums.sum(0), of_W_p.whole(), of_b_p, None, None


def _star(weight: Tensor, private: dict[int, Tensor], block: Block, room: Tensor) -> Tensor:
    """``W ⊗ W_p`` of a block's groups, (i, o) of one, (k, i, o) of several, in that room; W of the unknown domain."""
    if block.groups[0] not in private and len(block.groups) == 1:
        return weight
    for group, place in zip(block.groups, room, strict=False):
        if group in private:
            torch.mul(weight, private[group], out=place)
        else:
            place.copy_(weight)
    return room[: len(block.groups)] if len(block.groups) > 1 else room[0]


def _stacked(own: dict[int, Tensor], block: Block, room: Tensor | None = None) -> Tensor:
    """What a block's groups have: (…) of one, where it lies, (k, …) of several, in that room."""
    if len(block.groups) == 1:
        return own[block.groups[0]]
    parts = [own[group] for group in block.groups]
    return torch.stack(parts) if room is None else torch.stack(parts, out=room[: len(parts)])


def _room(blocks: Blocks, weight: Tensor) -> Tensor:
    """Room for the weights (k, i, o) of any of these blocks."""
    return weight.new_empty(max((len(block.groups) for block in blocks.each), default=0), *weight.shape[1:])


def _multiply(x: Tensor, block: Block, weight: Tensor, output: Tensor, bias: Tensor, *, training: bool) -> Tensor:
    """The output, with the rows of a block times the weights of its groups; another one where they are all rows."""
    if weight.dim() == 2:
        made = times(x, block.start, block.rows, weight, block.of(output), bias, training=training)
        return made if block.rows == len(x) else output
    torch.baddbmm(bias.unsqueeze(1), block.of(x), weight, out=block.of(output))
    return output


def _multiply_back(gradient: Tensor, block: Block, weight: Tensor, of_x: Tensor) -> Tensor:
    """The gradient of x, with that of a block's rows; another one where they are all rows."""
    if weight.dim() == 2:
        made = times(gradient, block.start, block.rows, weight.t(), block.of(of_x))
        return made if block.rows == len(gradient) else of_x
    torch.bmm(block.of(gradient), weight.transpose(1, 2), out=block.of(of_x))
    return of_x


def _outer(
    x: Tensor, gradient: Tensor, block: Block, places: Sequence[Tensor | None], room: Tensor
) -> list[tuple[Tensor, Tensor | None]]:
    """The gradient of the weights of each of a block's groups, (i, o), and the place that it is meant for.

    It may be that place, where a copy is saved by it; otherwise it lies in the room until the next one.
    """
    if len(block.groups) == 1:
        (place,) = places
        return [(outer(x, gradient, block.start, block.rows, room[0] if place is None else place), place)]
    own, g = block.of(x).transpose(1, 2), block.of(gradient)
    products = torch.bmm(own, g, out=room[: len(places)]) if g.dtype == room.dtype else torch.bmm(own, g)
    return list(zip(products.unbind(0), places, strict=True))


def _sums(gradient: Tensor, blocks: Blocks, dtype: torch.dtype) -> Tensor:
    """The gradients of the biases of the groups that have rows, in the order they lie: (P, o)."""
    by_group = [block.of(gradient).view(len(block.groups), block.rows, -1) for block in blocks.each]
    none = gradient.new_zeros(0, gradient.shape[1], dtype=dtype)
    return torch.cat([none, *(g.sum(1, dtype=dtype) for g in by_group)])


def _spread(sums: Tensor, present: Sequence[int], groups: int, *, sparse: bool) -> Tensor:
    """(P, o) of the groups that are present, in any order -> (G, o), without those from G on."""
    order = sorted((group, place) for place, group in enumerate(present) if group < groups)
    numbers, places = torch.tensor(order, dtype=torch.int64, device=sums.device).view(-1, 2).unbind(1)
    values, shape = sums.index_select(0, places), (groups, sums.shape[1])
    if sparse:
        return sparse_gradient(numbers, values, torch.Size(shape))
    return sums.new_zeros(shape).index_copy_(0, numbers, values)


class _Gradients:
    """The gradient of a tensor of G groups: written group by group, then given as a whole.

    Args:
        like: (G, …), for shape, type and device.
        present: the groups that have rows; the gradient of the others is zero.
        sparse: hold those of the groups with rows alone.
    """

    def __init__(self, like: Tensor, present: list[int], *, sparse: bool) -> None:
        present = sorted(present)
        self._shape, self._sparse, self._present = like.shape, sparse, present
        groups = len(present) if sparse else len(like)
        empty = like.new_empty if groups == len(present) else like.new_zeros
        self._values = empty(groups, *like.shape[1:])
        numbers = range(groups) if sparse else present
        self._parts = dict(zip(present, parts(self._values, numbers), strict=True))

    def of(self, block: Block) -> list[Tensor | None]:
        """Where those of a block's groups are to be written; None of a group that is not among them."""
        return [self._parts.get(group) for group in block.groups]

    def whole(self) -> Tensor:
        """(G, …)."""
        if not self._sparse:
            return self._values
        present = torch.tensor(self._present, dtype=torch.int64, device=self._values.device)
        return sparse_gradient(present, self._values, self._shape)


def _views(tensor: Tensor, groups: Sequence[int]) -> dict[int, Tensor]:
    """The parts (…) of these groups of a tensor (G, …), where they lie; without what it has not."""
    groups = [group for group in groups if group < len(tensor)]
    return dict(zip(groups, parts(tensor, groups), strict=True))


def parts(tensor: Tensor, groups: Sequence[int]) -> list[Tensor]:
    """Views of the parts (…) of these groups of a tensor (G, …).

    In one call if they are many: one for each would take as long as small products.
    """
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
