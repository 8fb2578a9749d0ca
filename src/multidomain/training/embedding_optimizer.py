"""Adam for embedding tables that costs what a batch touches, not what the table holds."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag


def coalesced(gradient: Tensor) -> Tensor:
    """The sparse gradient (V, …) with the values of repeated rows summed and its indices sorted."""
    if gradient.is_coalesced():
        return gradient
    if gradient.is_cuda:
        return gradient.coalesce()  # sorts, so its sums do not depend on the order of atomic additions
    index, values = gradient._indices()[0], gradient._values()
    if bool((index[1:] > index[:-1]).all()):  # as layers make it for their domains; autograd forgets to say so
        return _in_order(index, values, gradient.shape)
    ordered, order = torch.sort(index.int() if len(gradient) < 2**31 else index, stable=True)
    rows, counts = torch.unique_consecutive(ordered, return_counts=True)
    starts = torch.zeros_like(counts)
    torch.cumsum(counts[:-1], 0, out=starts[1:])
    summed = embedding_bag(order, values, starts, mode="sum")  # twice as fast as index_add_ or coalesce
    return _in_order(rows.long(), summed, gradient.shape)


def _in_order(rows: Tensor, values: Tensor, shape: torch.Size) -> Tensor:
    return torch.sparse_coo_tensor(rows.unsqueeze(0), values, shape, is_coalesced=True, check_invariants=False)


class LazyAdam(torch.optim.Optimizer):
    """Adam (Kingma and Ba, Algorithm 1) over the rows that a sparse gradient touches.

    The update of :class:`torch.optim.SparseAdam`: moments of untouched rows do not decay, and the bias correction
    counts the steps of the table, not of each row. A row first met at step 1000 therefore starts with small moments
    and a correction of almost one: its first update is ``lr * (1 - b1) / sqrt(1 - b2)``, about three learning rates
    for the default betas, whatever its gradient. Counting per row would make it one learning rate, at the price of
    one more column to read and write.

    Args:
        parameters: tables (V, d), or groups of them, whose gradients are sparse (``nn.Embedding(sparse=True)``).
        lr: the learning rate.
        betas: decay of the two moments.
        eps: added to the root of the second moment, before its bias correction as in SparseAdam.
        weight_decay: decoupled: every touched row is first multiplied with ``1 - lr * weight_decay``.

    Raises:
        ValueError: a gradient is dense.
    """

    def __init__(
        self,
        parameters: Iterable[Any],
        *,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(parameters, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})
        for group in self.param_groups:
            for table in group["params"]:
                self.state[table] = {
                    "step": torch.zeros((), dtype=torch.float32),
                    "exp_avg": torch.zeros_like(table, memory_format=torch.contiguous_format),
                    "exp_avg_sq": torch.zeros_like(table, memory_format=torch.contiguous_format),
                }

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One update of every table that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for table in group["params"]:
                if table.grad is not None:
                    self._update(table, group)
        return loss

    def _update(self, table: Tensor, group: dict[str, Any]) -> None:
        if not table.grad.is_sparse:  # type: ignore[union-attr]
            raise ValueError(f"LazyAdam takes sparse gradients, the table {tuple(table.shape)} got a dense one")
        gradient = coalesced(table.grad)  # type: ignore[arg-type]
        rows, values = gradient._indices()[0], gradient._values()
        state, (beta1, beta2), lr = self.state[table], group["betas"], group["lr"]
        state["step"] += 1
        step = int(state["step"].item())
        first = state["exp_avg"].index_select(0, rows).lerp_(values, 1 - beta1)
        second = state["exp_avg_sq"].index_select(0, rows).mul_(beta2).addcmul_(values, values, value=1 - beta2)
        state["exp_avg"].index_copy_(0, rows, first)
        state["exp_avg_sq"].index_copy_(0, rows, second)
        size = lr * (1 - beta2**step) ** 0.5 / (1 - beta1**step)
        current = table.index_select(0, rows)
        if group["weight_decay"]:
            current.mul_(1 - lr * group["weight_decay"])
        table.index_copy_(0, rows, current.addcdiv_(first, second.sqrt_().add_(group["eps"]), value=-size))
