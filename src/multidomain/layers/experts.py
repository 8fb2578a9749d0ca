"""Mixtures of experts: networks of one shape on the same rows, weighted row by row.

Ma et al. 2018, "Modeling Task Relationships in Multi-task Learning with Multi-gate Mixture-of-Experts", Eq. 5-6.
Experts of each domain's own: Tang et al. 2020, "Progressive Layered Extraction (PLE)", section 4.1.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from .domain_linear import Segments
from .dropout import Dropout
from .exporting import own
from .mlp import he_


class Experts(nn.Module):
    """E networks, ReLU after every layer; one batched product per layer for all of them.

    Args:
        in_features: c, width of the input.
        hidden: widths of the layers; the last is h, the width of an expert's output.
        experts: E.
        dropout: share of activations dropped in training.
    """

    def __init__(self, *, in_features: int, hidden: Sequence[int], experts: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.experts = experts
        self.features = hidden[-1] if hidden else in_features
        pairs = list(pairwise([in_features, *hidden]))
        self.weights = nn.ParameterList(torch.empty(experts, i, o) for i, o in pairs)
        self.biases = nn.ParameterList(torch.zeros(experts, 1, o) for _, o in pairs)
        self.dropout = Dropout(share=dropout)
        for weight, (i, _) in zip(self.weights, pairs, strict=True):
            he_(weight, i, relu=True)

    def forward(self, x: Tensor) -> Tensor:
        """(B, c), or (E, B, c) with an input for each expert -> (E, B, h)."""
        x = x.expand(self.experts, *x.shape[-2:])
        for weight, bias in zip(self.weights, self.biases, strict=True):
            x = self.dropout(torch.relu(torch.baddbmm(bias, x, weight)))
        return x


class _DomainExpertsLayer(nn.Module):
    """The weights of one layer of :class:`DomainExperts`: (M+1, m, i, o) and (M+1, m, 1, o)."""

    def __init__(self, *, domains: int, experts: int, in_features: int, out_features: int) -> None:
        super().__init__()
        self.domain_weight = nn.Parameter(torch.empty(domains + 1, experts, in_features, out_features))
        self.domain_bias = nn.Parameter(torch.zeros(domains + 1, experts, 1, out_features))
        he_(self.domain_weight, in_features, relu=True)


class DomainExperts(nn.Module):
    """m experts for each domain and, slot M, for the unknown domain: networks with a ReLU after every layer.

    Args:
        in_features: c, width of the input.
        hidden: widths of the layers; the last is h, the width of an expert's output.
        domains: M.
        experts: m, the number of experts of each domain.
        dropout: share of activations dropped in training.
    """

    layers: Sequence[_DomainExpertsLayer]

    def __init__(
        self, *, in_features: int, hidden: Sequence[int], domains: int, experts: int, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.slots, self.experts = domains + 1, experts
        self.features = hidden[-1] if hidden else in_features
        self.layers = nn.ModuleList(  # type: ignore[assignment]
            _DomainExpertsLayer(domains=domains, experts=experts, in_features=i, out_features=o)
            for i, o in pairwise([in_features, *hidden])
        )
        self.dropout = Dropout(share=dropout)

    def every(self, x: Tensor) -> Tensor:
        """(B, c), or (M+1, B, c) with an input for each domain -> (M+1, m, B, h): the experts of all domains.

        One batched product per layer for all of them.
        """
        rows = x.shape[-2]
        if x.dim() == 3:
            x = x.unsqueeze(1).expand(-1, self.experts, -1, -1).flatten(0, 1)
        x = x.expand(self.slots * self.experts, *x.shape[-2:])
        for layer in self.layers:
            x = torch.baddbmm(layer.domain_bias.flatten(0, 1), x, layer.domain_weight.flatten(0, 1))
            x = self.dropout(torch.relu(x))
        return x.view(self.slots, self.experts, rows, self.features)

    def segmented(self, x: Tensor, segments: Segments) -> Tensor:
        """(B, c) -> (m, B, h): of each row its own domain's experts alone; rows sorted by domain."""
        if segments.present is not None:
            return self._in_graph(x, *segments.present)
        parts = [part.expand(self.experts, *part.shape) for part in x.split_with_sizes(segments.counts)]
        present = [p for p, part in enumerate(parts) if part.shape[1]]
        if not present:
            return x.new_empty(self.experts, 0, self.features)
        for layer in self.layers:
            weights, biases = layer.domain_weight.unbind(0), layer.domain_bias.unbind(0)
            for p in present:
                parts[p] = self.dropout(torch.relu(torch.baddbmm(biases[p], parts[p], weights[p])))
        return torch.cat([parts[p] for p in present], dim=1)

    def _in_graph(self, x: Tensor, which: Tensor, index: Tensor) -> Tensor:
        """The same where the rows are in any order: the experts of the domains that are present, on all rows."""
        for layer in self.layers:  # (U, m, B, …)
            x = torch.relu(torch.matmul(x, layer.domain_weight[which]) + layer.domain_bias[which])
        return own(x.transpose(1, 2), index).transpose(0, 1)


def mix(gate: Tensor, outputs: Tensor) -> Tensor:
    """The experts' outputs weighted by a gate: (B, E), (E, B, h) -> (B, h)."""
    return torch.einsum("be,ebh->bh", gate, outputs)
