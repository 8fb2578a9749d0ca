"""Adam for weights that each domain has for itself: a domain's weights move with its rows alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim.adamw import adamw

from .row_optimizer import coalesced


class DomainAdam(torch.optim.Optimizer):
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

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One update of every domain that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            slices: list[tuple[Tensor, ...]] = []
            for weights in group["params"]:
                if weights.grad is not None:
                    slices += self._slices(weights)
            if slices:
                _adam(slices, group)
        return loss

    def _slices(self, weights: Tensor) -> list[tuple[Tensor, ...]]:
        """Weight, gradient, moments and step of each domain in the batch."""
        gradient, state = weights.grad, self.state[weights]
        assert gradient is not None
        every = [part.unbind(0) for part in (weights, state["exp_avg"], state["exp_avg_sq"], state["step"])]
        if not gradient.is_sparse:
            return list(zip(every[0], gradient.unbind(0), *every[1:], strict=True))
        gradient = coalesced(gradient)
        found = zip(gradient._indices()[0].tolist(), gradient._values().unbind(0), strict=True)
        return [(every[0][domain], values, *(part[domain] for part in every[1:])) for domain, values in found]


def _adam(slices: list[tuple[Tensor, ...]], group: dict[str, Any]) -> None:
    weights, gradients, first, second, steps = (list(part) for part in zip(*slices, strict=True))
    beta1, beta2 = group["betas"]
    adamw(
        weights,
        gradients,
        first,
        second,
        [],
        steps,
        fused=True,
        amsgrad=False,
        beta1=beta1,
        beta2=beta2,
        lr=group["lr"],
        weight_decay=0.0,
        eps=group["eps"],
        maximize=False,
    )
