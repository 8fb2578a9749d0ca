"""The tensors of B impressions, as every model receives them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

_INTEGERS = (torch.int32, torch.int64)


@dataclass(frozen=True)
class Batch:
    """B impressions. Fields a data set lacks are empty: ``(B, 0)`` or ``{}``.

    Ids are local to their vocabulary: 0 is padding, 1 is unknown.

    Attributes:
        categorical: int (B, F), one id per field, in the order of ``InputSchema.categorical``.
        numerical: float (B, K), in the order of ``InputSchema.numerical``.
        history: field -> int (B, T), left-padded with 0, the most recent last; the fields run in step.
        bags: field -> int (B, L of that field), several ids without order, padded with 0 anywhere.
        domain: int (B,), 0 … M-1, or M for "unknown".
        label: float (B,), 0 or 1; of no consequence when scoring.
        repeated: names of fields, and ``domain``, that hold the same in every row, as the user's do in a request: in
            evaluation they are looked up for one row. Every row still holds them; one row expanded takes no room.
        weight: float (B,), how much a row counts in the loss; None: all the same.

    Raises:
        ValueError: a field whose shape or type is not the one above.
    """

    categorical: Tensor
    numerical: Tensor
    history: Mapping[str, Tensor]
    bags: Mapping[str, Tensor]
    domain: Tensor
    label: Tensor
    repeated: frozenset[str] = frozenset()
    weight: Tensor | None = None

    def __post_init__(self) -> None:
        if self.domain.dim() != 1:
            raise ValueError(f"domain must have the shape (B,), got {tuple(self.domain.shape)}")
        _check("domain", self.domain, "(B,)", 1, self.rows, integer=True)
        _check("label", self.label, "(B,)", 1, self.rows, integer=False)
        _check("categorical", self.categorical, "(B, F)", 2, self.rows, integer=True)
        _check("numerical", self.numerical, "(B, K)", 2, self.rows, integer=False)
        for name, ids in self.history.items():
            _check(f"history '{name}'", ids, "(B, T)", 2, self.rows, integer=True)
        for name, ids in self.bags.items():
            _check(f"bag '{name}'", ids, "(B, L)", 2, self.rows, integer=True)
        lengths = {name: ids.shape[1] for name, ids in self.history.items()}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"history fields run in step and must have one length T, got {lengths}")

    @property
    def rows(self) -> int:
        """B; unlike ``len()`` it stays a symbol while a graph is made of a network."""
        return self.domain.shape[0]

    def __len__(self) -> int:
        return self.rows

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> Batch:
        """The same impressions on another device."""

        def move(tensor: Tensor) -> Tensor:
            return tensor.to(device, non_blocking=non_blocking)

        return Batch(
            categorical=move(self.categorical),
            numerical=move(self.numerical),
            history={name: move(ids) for name, ids in self.history.items()},
            bags={name: move(ids) for name, ids in self.bags.items()},
            domain=move(self.domain),
            label=move(self.label),
            repeated=self.repeated,
            weight=None if self.weight is None else move(self.weight),
        )


def _check(name: str, tensor: Tensor, shape: str, dimensions: int, rows: int, *, integer: bool) -> None:
    if tensor.dim() != dimensions:
        raise ValueError(f"{name} must have the shape {shape}, got {tuple(tensor.shape)}")
    if tensor.shape[0] != rows:
        raise ValueError(f"{name} has {tensor.shape[0]} rows where domain has {rows}")
    if integer and tensor.dtype not in _INTEGERS:
        raise ValueError(f"{name} must hold int32 or int64 ids, got {tensor.dtype}")
    if not integer and not tensor.is_floating_point():
        raise ValueError(f"{name} must hold floats, got {tensor.dtype}")
