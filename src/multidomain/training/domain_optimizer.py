"""Adam for weights that each domain has for itself: a domain's weights move with its rows alone."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from ..layers.grouped import parts
from .row_optimizer import EachParameter, coalesced

LARGE = 2048  # numbers of a domain from which on it is worth an operation of its own


class DomainAdam(EachParameter):
    """An Adam (Kingma and Ba, Algorithm 1) for each domain, which takes a step when the domain has rows in the batch.

    Ordinary Adam moves all weights at every step: those of a domain that is not in the batch go on with what is left of
    their moments, and the step costs what all domains cost. Here both the moments and the count of steps are each
    domain's own. Where every batch has rows of every domain, the two are the same.

    Args:
        parameters: tensors (M, …), or groups of them, a slice for each domain. A sparse gradient holds the slices of
            the domains in the batch; a dense one is of all.
        lr: the learning rate.
        betas: decay of the two moments.
        eps: added to the root of the second moment.
    """

    def __init__(
        self,
        parameters: Iterable[Any],
        *,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ) -> None:
        super().__init__(parameters, {"lr": lr, "betas": betas, "eps": eps})
        for group in self.param_groups:
            for weights in group["params"]:
                self.state[weights] = {
                    "step": torch.zeros(len(weights), dtype=torch.float32, device=weights.device),
                    "exp_avg": torch.zeros_like(weights, memory_format=torch.contiguous_format),
                    "exp_avg_sq": torch.zeros_like(weights, memory_format=torch.contiguous_format),
                }

    def _update_parameter(self, parameter: Tensor, group: dict[str, Any]) -> None:
        weights, gradient, state = parameter, parameter.grad, self.state[parameter]
        assert gradient is not None
        if gradient.is_sparse:
            gradient = coalesced(gradient)
            domains, values = gradient._indices()[0], gradient._values()
        else:
            domains, values = torch.arange(len(weights), device=weights.device), gradient
        if not len(domains):
            return
        state["step"].index_add_(0, domains, state["step"].new_ones(len(domains)))
        tensors = [weights, state["exp_avg"], state["exp_avg_sq"], state["step"]]
        if values[0].numel() < LARGE:
            _together(tensors, values, domains, group)
        else:
            _one_by_one(tensors, values, domains, group)


def _together(tensors: list[Tensor], gradient: Tensor, domains: Tensor, group: dict[str, Any]) -> None:
    """All domains in a few operations, on copies of their rows."""
    (beta1, beta2), shape = group["betas"], (-1, *[1] * (gradient.dim() - 1))
    rows, first, second, step = (tensor.index_select(0, domains) for tensor in tensors)
    first.lerp_(gradient, 1 - beta1)
    second.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
    of_first, of_second = ((1 - beta**step).view(shape) for beta in (beta1, beta2))  # corrections of the start
    rows.addcdiv_(first / of_first, (second / of_second).sqrt_().add_(group["eps"]), value=-group["lr"])
    for tensor, changed in zip(tensors, (rows, first, second), strict=False):
        tensor.index_copy_(0, domains, changed)


def _one_by_one(tensors: list[Tensor], gradient: Tensor, domains: Tensor, group: dict[str, Any]) -> None:
    """Each domain where it lies, in one pass over its memory."""
    numbers, (beta1, beta2) = domains.tolist(), group["betas"]
    weights, first, second, steps = (parts(tensor, numbers) for tensor in tensors)
    torch._fused_adamw_(
        weights,
        list(gradient.unbind(0)),
        first,
        second,
        [],
        steps,
        lr=group["lr"],
        beta1=beta1,
        beta2=beta2,
        weight_decay=0.0,
        eps=group["eps"],
        amsgrad=False,
        maximize=False,
    )
