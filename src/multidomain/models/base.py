"""What every architecture is: a network from a batch to logits, and nothing more."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..batch import Batch
from ..errors import ConfigurationError, unknown_key
from ..inputs import InputSchema


class MultiDomainModel(nn.Module, ABC):
    """Scores impressions of M domains.

    A subclass takes the schema and keywords, the keywords being exactly those of its configuration file. In evaluation
    the score of a row does not depend on the rows beside it. A tensor whose size grows with the number of domains is
    called ``domain_…``, so that :func:`multidomain.models.build` can tell what they need before making them.

    Args:
        schema: the inputs.
    """

    def __init__(self, schema: InputSchema) -> None:
        super().__init__()
        self.schema = schema

    @abstractmethod
    def forward(self, batch: Batch) -> Tensor:
        """Logits (B,)."""

    def auxiliary_loss(self) -> Tensor:
        """A scalar to add to the loss of the batch last seen; 0 unless the paper adds one."""
        return torch.zeros((), device=next(self.parameters()).device)

    def serving_form(self) -> nn.Module:
        """The network to serve: batch -> logits (B,), the same to 1e-5 in evaluation, perhaps computed faster."""
        return self


def check_choice(key: str, value: str, allowed: Sequence[str]) -> None:
    """Raise ConfigurationError unless the value of ``key`` is one of those allowed."""
    if value not in allowed:
        raise ConfigurationError(f"{key}: {unknown_key(value, allowed)}")


def check_sizes(**sizes: int) -> None:
    """Raise ConfigurationError unless every value is a whole number of at least 1."""
    for key, size in sizes.items():
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise ConfigurationError(f"{key} must be a whole number of at least 1, got {size!r}")


def check_widths(key: str, widths: Sequence[int]) -> tuple[int, ...]:
    """The widths of hidden layers as a tuple; ConfigurationError unless each is a whole number of at least 1."""
    if isinstance(widths, str | int):
        raise ConfigurationError(f"{key} must be a list of layer widths such as [128, 64], got {widths!r}")
    for number, width in enumerate(widths):
        check_sizes(**{f"{key}[{number}]": width})
    return tuple(widths)


def check_shares(**shares: float) -> None:
    """Raise ConfigurationError unless every value is a number of at least 0 and below 1."""
    for key, value in shares.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1:
            raise ConfigurationError(f"{key} must be a number of at least 0 and below 1, got {value!r}")


def check_switches(**switches: bool) -> None:
    """Raise ConfigurationError unless every value is true or false."""
    for key, value in switches.items():
        if not isinstance(value, bool):
            raise ConfigurationError(f"{key} must be true or false, got {value!r}")
