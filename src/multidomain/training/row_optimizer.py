"""What the optimizers of embedding tables share: only the rows that a batch touches are read and written."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.graph import increment_version
from torch.nn.functional import embedding_bag

from ..layers.pooling import grouped, sparse_gradient
from .device import prefer_large_pages

CHUNK = 4096  # rows updated together: what is read of table and state then stays in a core's own cache until written


def coalesced(gradient: Tensor) -> Tensor:
    """The sparse gradient (V, …) with the values of repeated rows summed and its indices sorted."""
    if gradient.is_coalesced():
        return gradient
    if gradient.is_cuda:
        return gradient.coalesce()  # sorts, so its sums do not depend on the order of atomic additions
    index, values = gradient._indices()[0], gradient._values()
    if bool((index[1:] > index[:-1]).all()):  # autograd forgets the mark when it takes a gradient over
        return sparse_gradient(index, values, gradient.shape)
    rows, places, starts = grouped(index, len(gradient))
    summed = embedding_bag(places, values.flatten(1), starts, mode="sum")  # twice as fast as index_add_ or coalesce
    return sparse_gradient(rows, summed.view(-1, *values.shape[1:]), gradient.shape)


class EachParameter(torch.optim.Optimizer, ABC):
    """Updates one parameter after the other."""

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One update of every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update_parameter(parameter, group)
        return loss

    @abstractmethod
    def _update_parameter(self, parameter: Tensor, group: dict[str, Any]) -> None:
        """Change a parameter that has a gradient, in place."""


class RowOptimizer(EachParameter):
    """Updates the rows of tables (V, d) that have a sparse gradient, and leaves the others and their state alone.

    Memory and time of a step are those of the rows touched: nothing of V rows is made but the state, once.

    Args:
        parameters: tables, or groups of them, whose gradients are sparse (``nn.Embedding(sparse=True)``).
        defaults: the options of a group.

    Raises:
        ValueError: a gradient is dense.
    """

    def __init__(self, parameters: Iterable[Any], defaults: dict[str, Any]) -> None:
        super().__init__(parameters, defaults)
        for group in self.param_groups:
            for table in group["params"]:
                parts = self._start(table)
                for stored in (table, *parts.values()):
                    prefer_large_pages(stored)
                self.state[table] = {"step": torch.zeros((), dtype=torch.float32), **parts}

    @abstractmethod
    def _start(self, table: Tensor) -> dict[str, Tensor]:
        """The state of a table before its first step, in the order :meth:`_update` takes it: one row for each of V."""

    @abstractmethod
    def _update(self, rows: list[Tensor], gradient: Tensor, step: int, group: dict[str, Any]) -> None:
        """Change, in place, rows of the table and of its state (n, …) by their gradient (n, d), n at most CHUNK.

        Args:
            rows: of the table, then of each part of its state.
            gradient: of the loss.
            step: how many steps the table has had, this one included.
            group: the options.
        """

    def _update_parameter(self, parameter: Tensor, group: dict[str, Any]) -> None:
        table = parameter
        assert table.grad is not None
        if not table.grad.is_sparse:
            kind, shape = type(self).__name__, tuple(table.shape)
            raise ValueError(f"{kind} takes sparse gradients, the table {shape} got a dense one")
        gradient, state = coalesced(table.grad), self.state[table]
        touched, values = gradient._indices()[0], gradient._values()
        state["step"] += 1
        step = int(state["step"].item())
        stored = [_Rows(table), *(_Rows(part) for name, part in state.items() if name != "step")]
        chunk = CHUNK if table.device.type == "cpu" else max(len(touched), 1)
        for start in range(0, len(touched), chunk):
            chosen = touched[start : start + chunk]
            rows = [one.take(chosen) for one in stored]
            self._update(rows, values[start : start + chunk], step, group)
            for one, changed in zip(stored, rows, strict=True):
                one.put(chosen, changed)


class _Rows:
    """The rows of a tensor (V, …), to be read and written by their numbers.

    On the CPU a row is copied as one piece of memory by NumPy: twice as fast as ``index_select`` and ``index_copy_``,
    which copy it number by number.
    """

    def __init__(self, tensor: Tensor) -> None:
        self._tensor = tensor.detach()
        self._items: Any = None
        if tensor.device.type == "cpu" and self._tensor.is_contiguous() and tensor[:1].numel():
            item = np.dtype((np.void, self._tensor[0].nbytes))
            self._items = self._tensor.view(len(tensor), -1).view(torch.uint8).numpy().view(item).reshape(-1)

    def take(self, rows: Tensor) -> Tensor:
        """A copy of these rows (n,)."""
        if self._items is None:
            return self._tensor.index_select(0, rows)
        taken = torch.from_numpy(self._items.take(rows.numpy()).view(np.uint8))
        return taken.view(self._tensor.dtype).view(len(rows), *self._tensor.shape[1:])

    def put(self, rows: Tensor, values: Tensor) -> None:
        """Sets these rows (n,), each named once."""
        if self._items is None:
            self._tensor.index_copy_(0, rows, values)
            return
        bytes_of = values.contiguous().view(len(values), -1).view(torch.uint8)
        self._items[rows.numpy()] = bytes_of.numpy().view(self._items.dtype).reshape(-1)
        increment_version(self._tensor)
