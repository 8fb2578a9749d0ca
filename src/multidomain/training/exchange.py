"""Makes the gradients of each worker's rows those of the whole batch, the same bits in every worker.

Tables of ids: the rows that each worker's batch touches are gathered with their gradients, never a table. Weights of
domains: the domains that any worker has rows of are summed, so that a domain none of them has does not move. Everything
else is summed as it is. All that is summed goes in one message.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..layers.pooling import sparse_gradient
from ..layers.synchronised import padded, total
from .optimizers import sparse_tables
from .row_optimizer import coalesced

_NONE, _DENSE = -2, -1  # kinds of gradient, where a sparse one has its number of rows


class GradientExchange:
    """The gradients of a model that several processes train.

    Args:
        model: the same in all of them.
    """

    def __init__(self, model: nn.Module) -> None:
        self._parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self._tables = {id(table) for table in sparse_tables(model)}

    @torch.no_grad()
    def combine(self, numbers: Tensor) -> Tensor:
        """Sum the gradients over the workers, each of whose loss is its part of the batch's.

        Args:
            numbers: (n,) float32, whatever else is to be summed.

        Returns:
            their sums (n,).
        """
        for parameter in self._parameters:
            if parameter.grad is not None and parameter.grad.is_sparse:
                parameter.grad = coalesced(parameter.grad)
        kinds = torch.tensor([_kind(parameter) for parameter in self._parameters])
        every = torch.stack(padded(kinds, len(kinds)))  # (W, parameters)
        columns = every.T.tolist()
        dense = [p for p, kind in zip(self._parameters, columns, strict=True) if max(kind) == _DENSE]
        sparse = [(p, [max(one, 0) for one in kind]) for p, kind in zip(self._parameters, columns, strict=True)
                  if max(kind) >= 0]  # fmt: skip
        indices = _exchanged([_indices(p) for p, _ in sparse], [counts for _, counts in sparse])
        tables = [(p, counts, rows) for (p, counts), rows in zip(sparse, indices, strict=True) if self._is_table(p)]
        domains = [(p, torch.unique(torch.cat(rows))) for (p, _), rows in zip(sparse, indices, strict=True)
                   if not self._is_table(p)]  # fmt: skip
        self._exchange_rows(tables)
        return self._sum(dense, domains, numbers)

    def _is_table(self, parameter: Tensor) -> bool:
        return id(parameter) in self._tables

    def _exchange_rows(self, tables: Sequence[tuple[Tensor, list[int], list[Tensor]]]) -> None:
        widths = [table[0].numel() for table, _, _ in tables]
        counts = [[count * width for count in one] for (_, one, _), width in zip(tables, widths, strict=True)]
        values = _exchanged([_values(table).flatten() for table, _, _ in tables], counts)
        for (table, _, rows), parts in zip(tables, values, strict=True):
            table.grad = merged(rows, [part.view(-1, *table.shape[1:]) for part in parts], table.shape)

    def _sum(self, dense: Sequence[Tensor], domains: Sequence[tuple[Tensor, Tensor]], numbers: Tensor) -> Tensor:
        blocks = [torch.zeros_like(p) if p.grad is None else p.grad for p in dense]
        blocks += [spread(_indices(weights), _values(weights), present) for weights, present in domains]
        blocks.append(numbers)
        flat = total(torch.cat([block.flatten() for block in blocks]))
        sums = torch.split(flat, [block.numel() for block in blocks])
        for parameter, summed in zip(dense, sums, strict=False):
            parameter.grad = summed.view_as(parameter)
        for (weights, present), summed in zip(domains, sums[len(dense) :], strict=False):
            weights.grad = sparse_gradient(present, summed.view(-1, *weights.shape[1:]), weights.shape)
        return sums[-1]


def merged(rows: Sequence[Tensor], values: Sequence[Tensor], shape: torch.Size) -> Tensor:
    """The sum of sparse gradients of a table: rows (n,) and values (n, …) of each -> ascending rows, each once."""
    indices, stacked = torch.cat(list(rows)), torch.cat(list(values))
    if not len(indices):
        return sparse_gradient(indices, stacked, shape)
    every = torch.sparse_coo_tensor(indices.unsqueeze(0), stacked, shape, is_coalesced=False, check_invariants=False)
    return coalesced(every)


def spread(rows: Tensor, values: Tensor, among: Tensor) -> Tensor:
    """Values (n, …) of some rows (n,) in their places among ascending rows (U,): (U, …), zeros for the others."""
    block = values.new_zeros(len(among), *values.shape[1:])
    return block.index_copy_(0, torch.searchsorted(among, rows), values)


def _exchanged(own: Sequence[Tensor], counts: Sequence[Sequence[int]]) -> list[list[Tensor]]:
    """Tensors (n,) of one type, in one message: of each, what every worker has. `counts`: the n of every worker."""
    if not own:
        return []
    lengths = [sum(column) for column in zip(*counts, strict=True)]
    parts = padded(torch.cat(list(own)), max(lengths))
    split = [
        torch.split(part[:length], [one[worker] for one in counts])
        for worker, (part, length) in enumerate(zip(parts, lengths, strict=True))
    ]
    return [list(pieces) for pieces in zip(*split, strict=True)]


def _kind(parameter: Tensor) -> int:
    gradient = parameter.grad
    if gradient is None:
        return _NONE
    return gradient._indices().shape[1] if gradient.is_sparse else _DENSE


def _indices(parameter: Tensor) -> Tensor:
    gradient = parameter.grad
    return torch.zeros(0, dtype=torch.int64, device=parameter.device) if gradient is None else gradient._indices()[0]


def _values(parameter: Tensor) -> Tensor:
    gradient = parameter.grad
    return parameter.new_zeros(0, *parameter.shape[1:]) if gradient is None else gradient._values()
