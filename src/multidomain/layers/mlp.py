"""Plain fully-connected networks."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from .dropout import Dropout
from .products import Linear


def he_(weight: Tensor, fan_in: int, *, relu: bool) -> None:
    """He et al. 2015: variance 2 / fan_in before a ReLU, 1 / fan_in before a linear output."""
    with torch.no_grad():
        weight.normal_(std=((2.0 if relu else 1.0) / max(fan_in, 1)) ** 0.5)


def he_linear(in_features: int, out_features: int, *, relu: bool) -> nn.Linear:
    """A linear layer that starts with He's weights and zero biases."""
    layer = Linear(in_features, out_features)
    he_(layer.weight, in_features, relu=relu)
    nn.init.zeros_(layer.bias)
    return layer


class MLP(nn.Module):
    """Linear, ReLU, dropout for each hidden width, then a linear output.

    Args:
        in_features: width of the input.
        hidden: widths of the hidden layers; none makes it a single linear layer.
        out_features: width of the output.
        dropout: share of hidden activations dropped in training.
    """

    def __init__(self, *, in_features: int, hidden: Sequence[int], out_features: int = 1, dropout: float = 0.0) -> None:
        super().__init__()
        widths = [in_features, *hidden, out_features]
        self.layers = nn.ModuleList(Linear(i, o) for i, o in pairwise(widths))
        self.dropout = Dropout(share=dropout)
        for number, layer in enumerate(self.layers, start=1):
            assert isinstance(layer, nn.Linear)
            he_(layer.weight, layer.in_features, relu=number < len(self.layers))
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_features) -> (B, out_features)."""
        for layer in self.layers[:-1]:
            x = self.dropout(torch.relu(layer(x)))
        output: Tensor = self.layers[-1](x)
        return output


class HiddenLayers(nn.Module):
    """Linear, ReLU, dropout for each width: what comes before the parts of a network that differ.

    Args:
        in_features: width of the input.
        hidden: widths of the layers; none gives the input back.
        dropout: share of activations dropped in training.

    Attributes:
        features: width of the output.
    """

    def __init__(self, *, in_features: int, hidden: Sequence[int], dropout: float = 0.0) -> None:
        super().__init__()
        widths = [in_features, *hidden]
        self.features = widths[-1]
        self.layers = nn.ModuleList(Linear(i, o) for i, o in pairwise(widths))
        self.dropout = Dropout(share=dropout)
        for layer in self.layers:
            assert isinstance(layer, nn.Linear)
            he_(layer.weight, layer.in_features, relu=True)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_features) -> (B, features)."""
        for layer in self.layers:
            x = self.dropout(torch.relu(layer(x)))
        return x
