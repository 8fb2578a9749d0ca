"""Linear layers whose weights are generated from a condition: dynamic weights.

HierRec, APG and DFFM have them. A condition such as the embedding of the domain is the same for many rows of a batch;
:class:`Distinct` finds the different ones, so that the weights are generated once for each.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .blocks import Blocks
from .domain_linear import Segments
from .exporting import exporting
from .grouped import grouped_linear
from .mlp import he_
from .products import Linear, linear

_FEW = 32  # rows per condition below which gathered weights are faster than a product per condition


@dataclass(frozen=True)
class Distinct:
    """The different rows of a condition (B, k).

    Attributes:
        rows: (U, k), each once. What they learn is passed on to the rows that share them, in equal parts.
        index: (B,), ``rows[index]`` is the condition.
    """

    rows: Tensor
    index: Tensor

    @classmethod
    def of(cls, condition: Tensor) -> Distinct:
        """Find them; rows are the same if their bits are. In a graph every row is taken for a different one."""
        if exporting():
            return cls(condition, torch.arange(condition.shape[0], device=condition.device))
        index = _classes(condition.detach())
        size = int(index.max()) + 1 if len(index) else 0
        position = torch.arange(len(index), device=index.device)
        first = position.new_full((size,), len(index)).scatter_reduce(0, index, position, "amin")
        rows = condition.detach()[first]
        if condition.requires_grad:
            count = torch.bincount(index, minlength=size).unsqueeze(1)
            mean = torch.zeros_like(rows).index_add(0, index, condition) / count
            rows = rows + (mean - mean.detach())  # the value of the first, the gradient of the mean
        return cls(rows, index)


def _classes(condition: Tensor) -> Tensor:
    """(B, k) -> (B,) of 0 … U-1, equal for equal rows.

    Sorting rows takes longer than a layer; sorting one number per row does not. The number is a sum of the row's bits
    with fixed odd factors; that no two different rows have the same is checked.
    """
    bits = condition.float().contiguous().view(torch.int32).long()
    factor = torch.full(condition.shape[1:], 0x5851F42D4C957F2D, device=bits.device).cumprod(0)
    index: Tensor = torch.unique((bits * factor).sum(1), return_inverse=True)[1]
    if not _is_right(condition, index):
        index = torch.unique(condition, dim=0, return_inverse=True)[1]
    return index


def _is_right(condition: Tensor, index: Tensor) -> bool:
    """Whether rows of one class are the same row."""
    example = torch.zeros_like(condition).index_copy(0, index, condition)  # of each class, one of its rows
    return torch.equal(example[index], condition)


class GeneratedLinear(nn.Module):
    """``W(c)ᵀ x + b(c)``, W and b being linear in the condition c: ``[W; b] = A c + a``.

    The generator's bias a starts as the weights of an ordinary layer, He's or the identity, and zeros for its b: at the
    start that layer is every condition's, and A, of variance 1 / (k i), adds to it what the condition makes different.

    Args:
        condition: k, width of the condition.
        in_features: i.
        out_features: o.
        bias: whether there is a b.
        identity: start from the identity; i = o then.
    """

    def __init__(
        self, *, condition: int, in_features: int, out_features: int, bias: bool = True, identity: bool = False
    ) -> None:
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        self.size = in_features * out_features
        self.generator = Linear(condition, self.size + out_features * bias)
        he_(self.generator.weight, condition * in_features, relu=False)
        nn.init.zeros_(self.generator.bias)
        with torch.no_grad():
            weight = self.generator.bias[: self.size].view(in_features, out_features)
            if identity:
                nn.init.eye_(weight)
            else:
                he_(weight, in_features, relu=False)

    def weights(self, condition: Tensor) -> tuple[Tensor, Tensor]:
        """(…, k) -> W (…, i, o) and b (…, o), zero without bias."""
        generated: Tensor = self.generator(condition)
        weight = generated[..., : self.size].reshape(*condition.shape[:-1], self.in_features, self.out_features)
        if generated.shape[-1] == self.size:
            return weight, generated.new_zeros(*generated.shape[:-1], self.out_features)
        return weight, generated[..., self.size :]

    def distinct(self, x: Tensor, condition: Distinct) -> Tensor:
        """(B, i) or (B, n, i) -> (B, o) or (B, n, o); W and b are generated once for each different condition."""
        weight, bias = self.weights(condition.rows)  # (U, i, o), (U, o)
        if x.dim() == 3:
            return _rows(x, condition.index, weight, bias)
        return _rows(x.unsqueeze(1), condition.index, weight, bias)[:, 0]

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """(B, i), or (B, G, i) with an input for each condition; (B, G, k) -> (B, G, o).

        W and b are those of each row and each of its G conditions. An x that the G conditions share meets A first:
        ``(A x) c`` is a G-th of the work of ``(A c)ᵀ x``.

        Memory, until the backward pass: B·o·k numbers for a shared x, B·G·i·o otherwise: of HierRec's two implicit
        layers, 33 MB each for 2,000 rows of 4 heads. The same by fields and in pieces of 32 rows took as long.
        """
        A, a = self.generator.weight, self.generator.bias  # (i o + o, k), (i o + o,)
        if x.dim() == 3:
            weight = linear(condition, A[: self.size], a[: self.size])  # b apart: no gradient of W and b to be joined
            output = (x.unsqueeze(2) @ weight.view(*x.shape, self.out_features))[:, :, 0]  # (B, G, o)
            return output if len(a) == self.size else output + linear(condition, A[self.size :], a[self.size :])
        shape = (x.shape[0], self.out_features, A.shape[1])
        layers = (x @ A[: self.size].view(self.in_features, -1)).view(shape)  # (B, o, k)
        same = x @ a[: self.size].view(self.in_features, self.out_features)  # (B, o), whatever the condition
        output = torch.baddbmm(same.unsqueeze(1), condition, layers.transpose(1, 2))  # (B, G, o)
        if len(a) == self.size:
            return output
        return output + linear(condition, A[self.size :], a[self.size :])


def _rows(x: Tensor, index: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """``x[r] @ weight[index[r]] + bias[index[r]]`` for each row r: (B, n, i), (B,), (U, i, o), (U, o) -> (B, n, o)."""
    if exporting():
        return torch.baddbmm(bias.unsqueeze(1), x, weight)
    if len(index) < _FEW * len(weight) or not len(index):
        weight, bias = (one.index_select(0, index) for one in (weight, bias))  # whose gradient has one order of summing
        return torch.baddbmm(bias.unsqueeze(1), x, weight)
    segments = Segments.of(index, len(weight) - 1)
    n = x.shape[1]
    counts = [count * n for count in segments.counts]
    output = grouped_linear(segments.sort(x).flatten(0, 1), Blocks.sorted(counts), weight, bias)
    return segments.unsort(output.view(len(index), n, -1))
