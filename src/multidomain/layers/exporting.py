"""The form of a network that can be written down as a graph: no step depends on the values of a batch.

Training and serving sort rows by domain, skip what no row needs and look for ids that cannot be. A graph
(:func:`torch.export.export`) has one course for all batches, whatever their number of rows and domains; layers that
have such steps take the way of this module while :func:`exporting`. Scores are the same to 1e-5.
"""

from __future__ import annotations

import torch
from torch import Tensor


def exporting() -> bool:
    """Whether a graph is being made of the network."""
    return torch.compiler.is_exporting()


def present(group: Tensor, groups: int) -> tuple[Tensor, Tensor]:
    """(B,) of 0 … ``groups`` - 1 -> the groups that have rows (U,), and where among these each row's is (B,)."""
    some = (group.unsqueeze(1) == torch.arange(groups, device=group.device)).any(0)  # (groups,)
    return some.nonzero()[:, 0], (some.long().cumsum(0) - 1)[group]


def own_linear(x: Tensor, which: Tensor, index: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """The linear layer of each row's own group, computed for the groups that are present, on all rows.

    The work is U times that of one layer: a caller with many groups gives the graph the rows of one at a time.

    Args:
        x: (B, i).
        which: (U,) the groups that are present.
        index: (B,) where among these the group of each row is.
        weight: (G, i, o).
        bias: (G, o).

    Returns:
        (B, o).
    """
    every = torch.matmul(x.unsqueeze(0), weight[which]) + bias[which].unsqueeze(1)  # (U, B, o)
    return own(every, index)


def own(every: Tensor, index: Tensor) -> Tensor:
    """Of what all groups have for each row, what its own has: (U, B, o), (B,) -> (B, o)."""
    return every.transpose(0, 1)[torch.arange(index.shape[0], device=index.device), index]


def pooled(table: Tensor, rows: Tensor, lengths: tuple[int, ...], weights: Tensor) -> Tensor:
    """The weighted sums of the rows of each bag: (V, d), (B, N), the columns of each bag, (B, N) -> (B, L, d)."""
    looked_up = torch.nn.functional.embedding(rows, table) * weights.unsqueeze(-1)  # (B, N, d)
    parts = looked_up.split_with_sizes(lengths, dim=1)
    return torch.stack([part[:, 0] if part.shape[1] == 1 else part.sum(1) for part in parts], dim=1)
