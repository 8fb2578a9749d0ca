"""Products of float32 by oneDNN in training, on processors where it computes them faster than MKL.

PyTorch computes products of float32 with MKL, which has no AVX-512 kernels for AMD's processors: oneDNN, which PyTorch
carries for bf16, computes the same products there in half the time (``python -m benchmarks.products``). It makes a
kernel for each shape it meets, which takes longer than a small product, so the rows of a domain, which never number the
same, are computed together with rows beside them, up to one of a few numbers. Scores of evaluation and of a packaged
model are computed as PyTorch does by itself.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

LEAST = 1 << 21  # multiplications from which on a product is worth it
ROWS = 16  # so many rows, and more, of a group are worth one
STEPS = 8  # numbers of rows there are kernels for, in each octave


@functools.cache
def faster_by_onednn() -> bool:
    """Whether this processor is one of AMD's with AVX-512."""
    if not torch._C._has_mkldnn or torch.backends.cpu.get_cpu_capability() != "AVX512":
        return False
    try:
        return "AuthenticAMD" in Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return False


class Linear(nn.Linear):
    """``nn.Linear``, trained with the faster products."""

    def forward(self, x: Tensor) -> Tensor:
        """(…, in_features) -> (…, out_features)."""
        return linear(x, self.weight, self.bias)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``x @ weight.T + bias``, as ``torch.nn.functional.linear``.

    Args:
        x: (…, i).
        weight: (o, i).
        bias: (o,), or None.
    """
    if not (torch.is_grad_enabled() and _suits(x, weight)):
        return functional.linear(x, weight, bias)
    rows = x.reshape(-1, x.shape[-1])
    if len(rows) * weight.numel() < LEAST:
        return functional.linear(x, weight, bias)
    output: Tensor = _Linear.apply(rows, weight, bias)  # type: ignore[no-untyped-call]
    return output.view(*x.shape[:-1], len(weight))


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _product(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        needs_x, needs_weight, needs_bias = ctx.needs_input_grad
        return (
            _product(gradient, weight.t()) if needs_x else None,
            _product(gradient.t(), x.t()) if needs_weight else None,
            gradient.sum(0) if needs_bias else None,
        )


def times(
    x: Tensor,
    start: int,
    rows: int,
    weight: Tensor,
    place: Tensor,
    bias: Tensor | None = None,
    *,
    training: bool = True,
) -> Tensor:
    """``x[start : start + rows] @ weight + bias``: (rows, o).

    Args:
        x: (B, i), rows of several groups.
        start, rows: where the group's are.
        weight: (i, o), of the group.
        place: (rows, o), where it is written and then returned; left as it is where the rows are all of x, which saves
            a copy.
        bias: (o,), or None.
        training: whether it may be computed faster; in evaluation a row's output never depends on others.
    """
    reach = _reach(x, start, rows, weight) if training else None
    if reach is not None:
        first, count = reach
        made = _product(x.narrow(0, first, count), weight.t(), bias)
        return made if rows == len(x) else place.copy_(made.narrow(0, start - first, rows))
    if bias is None:
        return torch.mm(x.narrow(0, start, rows), weight, out=place)
    return torch.addmm(bias, x.narrow(0, start, rows), weight, out=place)


def outer(x: Tensor, gradient: Tensor, start: int, rows: int, place: Tensor) -> Tensor:
    """``x[start : start + rows].T @ gradient[start : start + rows]``: (i, o).

    Args:
        x: (B, i), rows of several groups.
        gradient: (B, o).
        start, rows: where the group's are.
        place: (i, o), where it is written and then returned, if that saves a copy; otherwise left as it is.
    """
    reach = _reach(x, start, rows, gradient)
    if reach is None:
        own, g = x.narrow(0, start, rows).t(), gradient.narrow(0, start, rows)
        return torch.mm(own, g, out=place) if own.dtype == place.dtype else own @ g
    if rows == len(x):
        return _product(gradient.t(), x.t()).t()
    first, count = reach
    alone = gradient.new_zeros(count, gradient.shape[1])  # the rows beside the group's count for nothing
    alone.narrow(0, start - first, rows).copy_(gradient.narrow(0, start, rows))
    return _product(x.narrow(0, first, count).t(), alone.t())


def _reach(x: Tensor, start: int, rows: int, other: Tensor) -> tuple[int, int] | None:
    """First row and number of rows that are computed instead; None where the group's own are, the usual way."""
    if rows < ROWS or rows * x.shape[1] * other.shape[1] < LEAST or not _suits(x, other):
        return None
    if rows == len(x):  # a batch of one group: batches number the same
        return start, rows
    count = padded(rows)
    return None if count > len(x) else (min(start, len(x) - count), count)


def padded(rows: int) -> int:
    """The next of the numbers of rows there are kernels for: at most an eighth more."""
    octave = 1 << max(rows - 1, 1).bit_length() - 1  # the power of two below
    step = max(octave // STEPS, 1)
    return -(-rows // step) * step


def _suits(x: Tensor, other: Tensor) -> bool:
    return (
        faster_by_onednn()
        and not torch.compiler.is_compiling()
        and x.device.type == "cpu"
        and x.dtype == other.dtype == torch.float32
        and not torch.is_autocast_enabled("cpu")
    )


def _product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``x @ weight.T + bias``: (n, i), (o, i), (o,) -> (n, o)."""
    output: Tensor = torch.ops.mkldnn._linear_pointwise(x, _dense(weight), bias, "none", [], "")
    return output


def _dense(weight: Tensor) -> Tensor:
    """The same numbers without gaps between them: with gaps, oneDNN takes hundreds of times as long."""
    return weight if weight.is_contiguous() or weight.t().is_contiguous() else weight.contiguous()
