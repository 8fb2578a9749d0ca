"""DCN V2: Improved Deep & Cross Network and Practical Lessons for Web-scale Learning to Rank Systems.

Ruoxi Wang, Rakesh Shivanna, Derek Z. Cheng, Sagar Jain, Dong Lin, Lichan Hong, Ed H. Chi. WWW 2021.
https://arxiv.org/abs/2008.13535

Notation: B rows, c the width of x_0 (the concatenated embeddings), r the rank, K the experts of a cross layer, ⊙ the
element-wise product.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Unpack

import torch
from torch import Tensor, nn

from ...batch import Batch
from ...inputs import InputSchema
from ...layers.mlp import MLP, he_
from ..base import InputOptions, MultiDomainModel, check_choice, check_shares, check_sizes, check_widths


class DCNv2(MultiDomainModel):
    """A cross network with a matrix per layer, before the deep network (stacked) or beside it (parallel; Figure 1).

    What the paper leaves open, as chosen here (†):

    - † stacked, three cross layers with full matrices: the paper chooses structure, kind and number by data set.
    - † the mixture has a gate per layer, linear and without bias, softmax over the experts (the paper names sigmoid and
      softmax); its g is tanh (the paper: any nonlinear activation); the experts of a layer share b_l, as in Eq. 3.
    - † cross weights start normal with variance 1 / fan-in, biases at 0; the output layer has a bias.
    - † widths 512-256-128-64-32-16 for the deep network (the paper tunes them), those of the Base it is compared with.
    - † the auxiliary network stands beside it, for the network does not see the domain otherwise.

    Args:
        schema: the inputs.
        hidden: widths of the deep layers.
        cross_layers: number of cross layers.
        cross: matrix (Eq. 1), low_rank (Eq. 2) or mixture: of low-rank experts (Eq. 3-4).
        rank: r, of a low-rank or mixture layer.
        experts: K, of a mixture layer.
        gate: softmax or sigmoid, of a mixture layer.
        structure: stacked or parallel.
        normalization: of x_0, before both networks: none, batch, partitioned or layer.
        auxiliary: whether the auxiliary network is added.
        dropout: share of hidden activations of the deep network dropped in training; not in the paper.
        inputs: see :class:`~multidomain.models.base.MultiDomainModel`.
    """

    def __init__(
        self,
        schema: InputSchema,
        *,
        hidden: Sequence[int] = (512, 256, 128, 64, 32, 16),
        cross_layers: int = 3,
        cross: str = "matrix",
        rank: int = 32,
        experts: int = 4,
        gate: str = "softmax",
        structure: str = "stacked",
        normalization: str = "none",
        auxiliary: bool = True,
        dropout: float = 0.0,
        **inputs: Unpack[InputOptions],
    ) -> None:
        super().__init__(schema, normalization=normalization, **inputs)
        hidden = check_widths("hidden", hidden)
        check_sizes(cross_layers=cross_layers, rank=rank, experts=experts)
        check_choice("cross", cross, ["matrix", "low_rank", "mixture"])
        check_choice("gate", gate, ["softmax", "sigmoid"])
        check_choice("structure", structure, ["stacked", "parallel"])
        check_shares(dropout=dropout)
        c = self.inputs.width

        def layer() -> nn.Module:
            if cross == "matrix":
                return MatrixCross(features=c)
            if cross == "low_rank":
                return LowRankCross(features=c, rank=rank)
            return MixtureCross(features=c, rank=rank, experts=experts, gate=gate)

        self.cross = nn.ModuleList(layer() for _ in range(cross_layers))
        self.deep = MLP(in_features=c, hidden=hidden, dropout=dropout)
        self.cross_output = _linear(c, 1, bias=False) if structure == "parallel" else None
        self.add_auxiliary(auxiliary)

    def forward(self, batch: Batch) -> Tensor:
        """Logits (B,)."""
        x = self.inputs(batch)  # section 3.1
        x_0 = self.normalization(x.z, batch.domain)  # (B, c)
        x_l = x_0
        for layer in self.cross:
            x_l = layer(x_0, x_l)  # Eq. 1, 2 or 3-4  (B, c)
        if self.cross_output is None:  # section 3.4, stacked: h_0 = x_{L_c}, ŷ = σ(w_logitᵀ h_{L_d})
            logit: Tensor = self.deep(x_l)[:, 0]  # (B,)
        else:  # parallel: ŷ = σ(w_logitᵀ [x_{L_c}, h_{L_d}]), the two halves of the product added up
            logit = (self.cross_output(x_l) + self.deep(x_0))[:, 0]  # (B,)
        return self.with_auxiliary(logit, x)


class MatrixCross(nn.Module):
    """``x_{l+1} = x_0 ⊙ (W_l x_l + b_l) + x_l`` (Eq. 1).

    Args:
        features: c.
    """

    def __init__(self, *, features: int) -> None:
        super().__init__()
        self.linear = _linear(features, features)

    def forward(self, x_0: Tensor, x_l: Tensor) -> Tensor:
        """(B, c), (B, c) -> (B, c)."""
        return torch.addcmul(x_l, x_0, self.linear(x_l))  # Eq. 1


class LowRankCross(nn.Module):
    """``x_{l+1} = x_0 ⊙ (U_l (V_lᵀ x_l) + b_l) + x_l`` (Eq. 2).

    Args:
        features: c.
        rank: r.
    """

    def __init__(self, *, features: int, rank: int) -> None:
        super().__init__()
        self.v = _linear(features, rank, bias=False)
        self.u = _linear(rank, features)

    def forward(self, x_0: Tensor, x_l: Tensor) -> Tensor:
        """(B, c), (B, c) -> (B, c)."""
        return torch.addcmul(x_l, x_0, self.u(self.v(x_l)))  # Eq. 2


class MixtureCross(nn.Module):
    """``x_{l+1} = Σ_i G_i(x_l) E_i(x_l) + x_l`` (Eq. 3), ``E_i = x_0 ⊙ (U_i g(C_i g(V_iᵀ x_l)) + b_l)`` (Eq. 4).

    Args:
        features: c.
        rank: r.
        experts: K.
        gate: softmax over the experts, or sigmoid for each.
    """

    def __init__(self, *, features: int, rank: int, experts: int, gate: str) -> None:
        super().__init__()
        self.v = nn.Parameter(torch.empty(experts, features, rank))
        self.c = nn.Parameter(torch.empty(experts, rank, rank))
        self.u = nn.Parameter(torch.empty(experts, rank, features))
        self.bias = nn.Parameter(torch.zeros(features))
        self.gate = _linear(features, experts, bias=False)
        self._softmax = gate == "softmax"
        for weight in (self.v, self.c, self.u):
            he_(weight, weight.shape[1], relu=False)

    def forward(self, x_0: Tensor, x_l: Tensor) -> Tensor:
        """(B, c), (B, c) -> (B, c)."""
        scores = self.gate(x_l)  # (B, K)
        g = torch.softmax(scores, dim=1) if self._softmax else torch.sigmoid(scores)
        low = torch.tanh(torch.matmul(x_l, self.v))  # (K, B, r)
        low = torch.tanh(torch.matmul(low, self.c))  # (K, B, r)
        weighted = (low * g.T.unsqueeze(2)).transpose(0, 1).flatten(1)  # (B, K·r): G_i before U_i, which is linear
        mixed = weighted @ self.u.flatten(0, 1) + g.sum(1, keepdim=True) * self.bias  # Σ_i G_i (U_i … + b_l)  (B, c)
        return torch.addcmul(x_l, x_0, mixed)  # Eq. 3


def _linear(in_features: int, out_features: int, *, bias: bool = True) -> nn.Linear:
    layer = nn.Linear(in_features, out_features, bias=bias)
    he_(layer.weight, in_features, relu=False)
    if bias:
        nn.init.zeros_(layer.bias)
    return layer
