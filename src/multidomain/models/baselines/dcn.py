"""Deep & Cross Network for Ad Click Predictions.

Ruoxi Wang, Bin Fu, Gang Fu, Mingliang Wang. ADKDD 2017. https://arxiv.org/abs/1708.05123

Notation: B rows, c the width of x_0 (the concatenated embeddings), L_1 cross layers, h the output of the deep network.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Unpack

import torch
from torch import Tensor, nn

from ...batch import Batch
from ...inputs import InputSchema
from ...layers.dropout import Dropout
from ...layers.mlp import he_
from ...layers.normalization import BatchNorm, NoNorm
from ..base import InputOptions, MultiDomainModel, check_shares, check_sizes, check_switches, check_widths


class DCN(MultiDomainModel):
    """A cross network and a deep network side by side on x_0, and one linear layer on both outputs (Figure 1).

    What the paper leaves open, as chosen here (†):

    - † a numerical feature is its value times a learnt vector, as for every model here (the paper stacks the number
      itself, Eq. 2).
    - † batch normalization in the deep network (section 4.2) stands between a linear layer and its ReLU.
    - † the combination layer has a bias.
    - † cross weights start normal with variance 1/c, so that x_lᵀ w_l has the size of an element of x_l; biases at 0.
    - † the auxiliary network stands beside it, for the network does not see the domain otherwise.

    Args:
        schema: the inputs.
        hidden: widths of the deep layers (the paper: two of 1024).
        cross_layers: L_1 (the paper: 6).
        batch_norm: batch normalization in every deep layer (the paper).
        normalization: of x_0, before both networks: none (the paper), batch, partitioned or layer.
        auxiliary: whether the auxiliary network is added.
        dropout: share of hidden activations dropped in training; the paper found none to help.
        inputs: see :class:`~multidomain.models.base.MultiDomainModel`.
    """

    def __init__(
        self,
        schema: InputSchema,
        *,
        hidden: Sequence[int] = (1024, 1024),
        cross_layers: int = 6,
        batch_norm: bool = True,
        normalization: str = "none",
        auxiliary: bool = True,
        dropout: float = 0.0,
        **inputs: Unpack[InputOptions],
    ) -> None:
        super().__init__(schema, normalization=normalization, **inputs)
        hidden = check_widths("hidden", hidden)
        check_sizes(cross_layers=cross_layers)
        check_switches(batch_norm=batch_norm)
        check_shares(dropout=dropout)
        c = self.inputs.width
        self.cross = CrossNetwork(features=c, layers=cross_layers)
        self.deep = DeepNetwork(in_features=c, hidden=hidden, batch_norm=batch_norm, dropout=dropout)
        self.combination = nn.Linear(c + self.deep.features, 1)
        he_(self.combination.weight, c + self.deep.features, relu=False)
        nn.init.zeros_(self.combination.bias)
        self.add_auxiliary(auxiliary)

    def forward(self, batch: Batch) -> Tensor:
        """Logits (B,)."""
        x = self.inputs(batch)
        x_0 = self.normalization(x.z, batch.domain)  # Eq. 2  (B, c)
        x_l1 = self.cross(x_0)  # Eq. 3  (B, c)
        h_l2 = self.deep(x_0, batch.domain)  # Eq. 4  (B, h)
        logit: Tensor = self.combination(torch.cat([x_l1, h_l2], dim=1))[:, 0]  # Eq. 5; its sigmoid is in the loss
        return self.with_auxiliary(logit, x)


class CrossNetwork(nn.Module):
    """``x_{l+1} = x_0 x_lᵀ w_l + b_l + x_l`` (Eq. 3): a polynomial of one degree more with every layer.

    Args:
        features: c.
        layers: L_1.
    """

    def __init__(self, *, features: int, layers: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(layers, features))
        self.bias = nn.Parameter(torch.zeros(layers, features))
        he_(self.weight, features, relu=False)

    def forward(self, x_0: Tensor) -> Tensor:
        """(B, c) -> (B, c)."""
        x = x_0
        for w, b in zip(self.weight, self.bias, strict=True):
            x = x_0 * (x @ w).unsqueeze(1) + b + x  # Eq. 3, as x_0 (x_lᵀ w_l): no matrix x_0 x_lᵀ is made
        return x


class DeepNetwork(nn.Module):
    """``h_{l+1} = ReLU(W_l h_l + b_l)`` (Eq. 4), with batch normalization before each ReLU if wanted.

    Args:
        in_features: c.
        hidden: widths of the layers.
        batch_norm: whether they are normalized.
        dropout: share of activations dropped in training.

    Attributes:
        features: h, the width of the last layer.
    """

    def __init__(self, *, in_features: int, hidden: Sequence[int], batch_norm: bool, dropout: float) -> None:
        super().__init__()
        widths = [in_features, *hidden]
        self.features = widths[-1]
        self.layers = nn.ModuleList(nn.Linear(i, o) for i, o in pairwise(widths))
        self.norms = nn.ModuleList(BatchNorm(width) if batch_norm else NoNorm() for width in hidden)
        self.dropout = Dropout(share=dropout)
        for layer in self.layers:
            assert isinstance(layer, nn.Linear)
            he_(layer.weight, layer.in_features, relu=True)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor, domain: Tensor) -> Tensor:
        """(B, c), (B,) -> (B, h)."""
        for layer, norm in zip(self.layers, self.norms, strict=True):
            x = self.dropout(torch.relu(norm(layer(x), domain)))
        return x
