"""STAR as the field's libraries compute it: every domain's network on every row, then a mask; one dense Adam."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from multidomain.batch import Batch
from multidomain.inputs import InputSchema
from multidomain.models import build


class AllTowersStar(nn.Module):
    """The network of our STAR without auxiliary network, all of whose domains work on every row.

    Kinder to it than the libraries are: inputs and partitioned normalization are ours, once per row; the weights of all
    domains lie in one tensor, so that the optimizer has few of them. Embeddings have dense gradients.

    Args:
        schema: the inputs.
        hidden: widths of the hidden layers.
        normalization: as of our STAR.
    """

    def __init__(self, schema: InputSchema, *, hidden: Sequence[int], normalization: str = "partitioned") -> None:
        super().__init__()
        self.domains, self.depth = schema.domains, len(hidden) + 1
        ours = build(
            "star",
            schema,
            hidden=hidden,
            normalization=normalization,
            auxiliary=False,
            sparse=False,
            max_domain_weight_gib=16.0,
        )
        self.inputs, self.normalization = ours.inputs, ours.normalization
        weights = {name: tensor.clone() for name, tensor in ours.state_dict().items() if name.startswith("fcn.")}
        self.fcn = nn.ParameterDict({name.replace(".", "/"): nn.Parameter(value) for name, value in weights.items()})

    def forward(self, batch: Batch) -> Tensor:
        """Logits (B,)."""
        z = self.normalization(self.inputs(batch).z, batch.domain)
        layers = [self._layer(number) for number in range(self.depth)]
        final = z.new_zeros(len(z))
        for p in range(self.domains):
            h = z
            for number, (weight, bias, own_weights, own_biases) in enumerate(layers):
                h = torch.addmm(bias + own_biases[p], h, weight * own_weights[p])
                h = torch.relu(h) if number < self.depth - 1 else h
            final = torch.where(batch.domain == p, h[:, 0], final)
        return final

    def _layer(self, number: int) -> tuple[Tensor, Tensor, Sequence[Tensor], Sequence[Tensor]]:
        """Shared weight and bias, and those of each domain, taken apart once: an index per use would cost far more."""
        names = ("weight", "bias", "domain_weight", "domain_bias")
        weight, bias, own_weight, own_bias = (self.fcn[f"fcn/layers/{number}/{name}"] for name in names)
        return weight, bias, own_weight.unbind(0), own_bias.unbind(0)

    def take(self, star: nn.Module) -> None:
        """The weights and moments of one of our own."""
        state = star.state_dict()
        names = {name: f"fcn.{name.replace('.', '/')}" if name.startswith("fcn.") else name for name in state}
        self.load_state_dict({names[name]: value for name, value in state.items()})


class DenseStep:
    """A training step with one dense Adam over everything, nothing watched.

    Args:
        model: batch -> logits.
        batches: to train on, in turn.
        learning_rate: of Adam.
    """

    def __init__(self, model: nn.Module, batches: Sequence[Batch], *, learning_rate: float = 1e-3) -> None:
        self.model, self.rows = model.train(), len(batches[0])
        self._batches = itertools.cycle(batches)
        self._adam = torch.optim.Adam(model.parameters(), lr=learning_rate, fused=True)

    def __call__(self) -> Any:
        """One step."""
        batch = next(self._batches)
        loss = binary_cross_entropy_with_logits(self.model(batch), batch.label)
        self._adam.zero_grad()
        loss.backward()
        self._adam.step()
        return loss.detach()
