"""Finds the step at which training went wrong, without waiting for the device at every step."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..batch import Batch
from ..errors import UserError
from .config import TrainingConfig
from .row_optimizer import coalesced


class TrainingError(UserError):
    """Training cannot go on: a loss, a gradient or a score is not finite."""


class GradientGuard:
    """Clips gradients and keeps, per step, the loss and the norm of every parameter's gradient until they are checked.

    Args:
        model: its parameters are named in the message.
        config: for clip_norm, and for the advice in the message.
    """

    def __init__(self, model: nn.Module, config: TrainingConfig) -> None:
        self._model, self._config = model, config
        self._steps: list[tuple[int, list[str], Tensor]] = []

    def watch(self, step: int, batch: Batch, loss: Tensor) -> None:
        """Clips the gradients of this step and remembers its numbers; sparse gradients are coalesced on the way."""
        self.remember(step, torch.stack([loss.detach().float(), batch.numerical.sum().float()]))

    def remember(self, step: int, head: Tensor) -> None:
        """The same; `head` (2,) holds the loss and the sum of the numerical inputs."""
        named = [(name, p) for name, p in self._model.named_parameters() if p.grad is not None]
        values = [_gradient_values(parameter) for _, parameter in named]
        norms = torch.stack(torch._foreach_norm(values))
        if self._config.clip_norm is not None:
            factor = (self._config.clip_norm / (torch.linalg.vector_norm(norms) + 1e-6)).clamp(max=1.0)
            torch._foreach_mul_(values, factor)
        self._steps.append((step, [name for name, _ in named], torch.cat([head, norms.float()])))

    def check(self, epoch: int) -> None:
        """Checks the steps since the last check.

        Raises:
            TrainingError: names the first bad step of the epoch (from 1) and the parameters.
        """
        if self._steps and not bool(torch.cat([numbers for *_, numbers in self._steps]).isfinite().all()):
            for step, names, numbers in self._steps:
                if not bool(numbers.isfinite().all()):
                    raise TrainingError(
                        self._message(epoch, step, names, numbers.tolist(), numbers.isfinite().tolist())
                    )
        self._steps.clear()

    def _message(self, epoch: int, step: int, names: list[str], numbers: list[float], finite: list[bool]) -> str:
        found = []
        if not finite[0]:
            found.append(f"the loss is {numbers[0]}")
        bad = [name for name, good in zip(names, finite[2:], strict=True) if not good]
        if bad:
            more = f" and of {len(bad) - 1} more parameters" if len(bad) > 1 else ""
            found.append(f"the gradient of '{bad[0]}'{more} is not finite")
        if not finite[1]:
            found.append("a numerical input is not finite")
            advice = "Look for infinite or missing values in the numerical features of the training rows."
        else:
            clip = "not set" if self._config.clip_norm is None else f"now {self._config.clip_norm:g}"
            advice = f"Lower learning_rate (now {self._config.learning_rate:g}) or set a smaller clip_norm ({clip})."
        return f"Training stopped in epoch {epoch}, step {step}: {', '.join(found)}. {advice}"


def _gradient_values(parameter: nn.Parameter) -> Tensor:
    """The values of the gradient; of a sparse one after its repeated rows were summed."""
    gradient = parameter.grad
    assert gradient is not None
    if not gradient.is_sparse:
        return gradient
    parameter.grad = coalesced(gradient)
    return parameter.grad._values()
