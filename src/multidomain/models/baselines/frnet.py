"""Enhancing CTR Prediction with Context-Aware Feature Representation Learning.

Fangye Wang, Yingxu Wang, Dongsheng Li, Hansu Gu, Tun Lu, Peng Zhang, Ning Gu. SIGIR 2022.
https://arxiv.org/abs/2204.08758

Notation: B rows, f fields of width d, E (B, f, d) their embeddings, ⊙ the element-wise product, σ the sigmoid, d_k the
width of queries and keys.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Unpack

import torch
from torch import Tensor, nn

from ...batch import Batch
from ...inputs import InputSchema
from ...layers.mlp import MLP, he_
from ..base import InputOptions, MultiDomainModel, check_shares, check_sizes, check_widths


class FRNet(MultiDomainModel):
    """Embeddings refined by their context, then a fully-connected network: the module of Figure 2 before a plain DNN.

    The refinement stands behind the history encoder and in front of the network, so with `history` it is the
    "+ FRNet" of ADS's comparison.

    What the paper leaves open, as chosen here (†):

    - † the network behind is that of the Base, 512-256-128-64-32-16 (the paper puts its module before many models).
    - † d_k = 10 and one hidden layer of 256 in the contextual information extractor, as the authors publish;
      Q Kᵀ is not scaled, the four projections of the attention have no bias, a PReLU has one slope per layer.
    - † σ(W_b) starts near ½ and E_g near 0, for both are products of small numbers at the start: E_r starts near E / 2.
    - † a normalization, if one is chosen, comes after the refinement, as the first step of the network.
    - † the auxiliary network stands beside it, for the network does not see the domain otherwise.

    Args:
        schema: the inputs.
        hidden: widths of the hidden layers of the network.
        attention: d_k.
        context_hidden: widths of the hidden layers of the contextual information extractor.
        normalization: of the refined embeddings: none (the paper), batch, partitioned or layer.
        auxiliary: whether the auxiliary network is added.
        dropout: share of hidden activations of the network dropped in training.
        inputs: see :class:`~multidomain.models.base.MultiDomainModel`.
    """

    def __init__(
        self,
        schema: InputSchema,
        *,
        hidden: Sequence[int] = (512, 256, 128, 64, 32, 16),
        attention: int = 10,
        context_hidden: Sequence[int] = (256,),
        normalization: str = "none",
        auxiliary: bool = True,
        dropout: float = 0.0,
        **inputs: Unpack[InputOptions],
    ) -> None:
        super().__init__(schema, normalization=normalization, **inputs)
        hidden = check_widths("hidden", hidden)
        context_hidden = check_widths("context_hidden", context_hidden)
        check_sizes(attention=attention)
        check_shares(dropout=dropout)
        c, d = self.inputs.width, self.inputs.embedding_dim

        def unit() -> ExtractionUnit:
            return ExtractionUnit(width=c, features=d, attention=attention, context_hidden=context_hidden)

        self.ieu_g, self.ieu_w = unit(), unit()
        self.mlp = MLP(in_features=c, hidden=hidden, dropout=dropout)
        self.add_auxiliary(auxiliary)

    def refine(self, E: Tensor) -> tuple[Tensor, Tensor]:
        """Embeddings (B, f, d) -> E_r (B, f, d), and the share σ(W_b) (B, f, d) that is kept of each number."""
        E_g, W_b = self.ieu_g(E), self.ieu_w(E)  # (B, f, d) each: complementary embeddings, weights
        kept = torch.sigmoid(W_b)
        return E * kept + E_g * (1 - kept), kept  # the complementary selection gate

    def forward(self, batch: Batch) -> Tensor:
        """Logits (B,)."""
        x = self.inputs(batch)
        E_r, _ = self.refine(x.fields)  # (B, f, d)
        z = self.normalization(E_r.flatten(1), batch.domain)  # (B, c)
        logit: Tensor = self.mlp(z)[:, 0]  # (B,)
        return self.with_auxiliary(logit, x)

    def insights(self, batch: Batch) -> dict[str, Tensor]:
        """``kept`` (B, f): the mean share of each field's own embedding in the refined one."""
        _, kept = self.refine(self.inputs(batch).fields)
        return {"kept": kept.mean(2)}

    def insight_labels(self) -> dict[str, Sequence[str]]:
        """The fields."""
        return {"kept": self.inputs.fields}


class ExtractionUnit(nn.Module):
    """The information extraction unit: ``O_vec ⊙ O_bit``, what fields say of each other times what all say together.

    Args:
        width: c = f·d.
        features: d.
        attention: d_k.
        context_hidden: widths of the hidden layers behind O_bit.
    """

    def __init__(self, *, width: int, features: int, attention: int, context_hidden: Sequence[int]) -> None:
        super().__init__()
        self.query, self.key, self.value = (_projection(features, attention) for _ in range(3))
        self.projection = _projection(attention, features)
        widths = [width, *context_hidden, features]
        self.context = nn.Sequential()
        for i, o in pairwise(widths):
            linear = nn.Linear(i, o)
            he_(linear.weight, i, relu=True)
            nn.init.zeros_(linear.bias)
            self.context.extend([linear, nn.PReLU()])

    def forward(self, E: Tensor) -> Tensor:
        """(B, f, d) -> (B, f, d)."""
        Q, K, V = self.query(E), self.key(E), self.value(E)  # (B, f, d_k) each
        attention = torch.softmax(Q @ K.transpose(1, 2), dim=2) @ V  # (B, f, d_k)
        o_vec = self.projection(attention)  # self-attention unit  (B, f, d)
        o_bit = self.context(E.flatten(1))  # contextual information extractor: PReLU(W h + b) twice or more  (B, d)
        output: Tensor = o_vec * o_bit.unsqueeze(1)  # integration unit  (B, f, d)
        return output


def _projection(in_features: int, out_features: int) -> nn.Linear:
    layer = nn.Linear(in_features, out_features, bias=False)
    he_(layer.weight, in_features, relu=False)
    return layer
