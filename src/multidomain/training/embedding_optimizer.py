"""Adam for embedding tables that costs what a batch touches, not what the table holds."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from .row_optimizer import RowOptimizer


class LazyAdam(RowOptimizer):
    """Adam (Kingma and Ba, Algorithm 1) over the rows that a sparse gradient touches.

    The update of :class:`torch.optim.SparseAdam`: moments of untouched rows do not decay, and the bias correction
    counts the steps of the table, not of each row. A row first met at step 1000 therefore starts with small moments
    and a correction of almost one: its first update is ``lr * (1 - b1) / sqrt(1 - b2)``, about three learning rates
    for the default betas, whatever its gradient. Counting per row would make it one learning rate, at the price of
    one more column to read and write.

    State: two moments (V, d), twice the memory of the table. 10 million rows of 16 numbers: 1.28 GB beside 0.64 GB.

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

    def _start(self, table: Tensor) -> dict[str, Tensor]:
        return {
            "exp_avg": torch.zeros_like(table, memory_format=torch.contiguous_format),
            "exp_avg_sq": torch.zeros_like(table, memory_format=torch.contiguous_format),
        }

    def _update(self, rows: list[Tensor], gradient: Tensor, step: int, group: dict[str, Any]) -> None:
        (table, first, second), (beta1, beta2) = rows, group["betas"]
        torch._fused_adamw_(  # what AdamW(fused=True) calls: everything in one pass over these rows
            [table],
            [gradient],
            [first],
            [second],
            [],
            [torch.full((), float(step), device=table.device)],
            lr=group["lr"],
            beta1=beta1,
            beta2=beta2,
            weight_decay=group["weight_decay"],
            eps=group["eps"] / (1 - beta2**step) ** 0.5,  # added after the correction there, before it here
            amsgrad=False,
            maximize=False,
        )
