"""HMDN: Hierarchical Multi-Distribution Network for Click-Through Rate Prediction.

Xingyu Lou, Yu Yang, Kuiyao Dong, Heyuan Huang, Wenyi Yu, Ping Wang, Xiu Li, Jun Wang. 2024.
https://arxiv.org/abs/2408.01332

Notation: B rows, x the embeddings of all features (width c + d), x_b (width z) those of the features that describe the
distribution, D levels of quantization, c_d the code of level d and e(c_d) its embedding, s_D = Σ e(c_d), ⊗ the
element-wise product, sg the stop-gradient.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Unpack

import torch
from torch import Tensor, nn

from ..batch import Batch
from ..inputs import InputSchema
from ..layers.distribution import HierarchicalDistribution
from ..layers.experts import Experts, mix
from ..layers.gate import GateNU
from ..layers.mlp import MLP, he_
from .base import (
    InputOptions,
    MultiDomainModel,
    check_choice,
    check_not_negative,
    check_shares,
    check_sizes,
    check_switches,
    check_widths,
)


class HMDN(MultiDomainModel):
    """Residual quantization of the distribution features, which steers a mixture of experts or a gate (Figure 1).

    What the paper leaves open, as chosen here (†):

    - † x_b is the embedding of the domain beside those of the categorical features which the schema declares as
      describing the distribution (``distribution: true``). "Whole input features" (section 2.3.1) has the domain in x,
      too: behind the other fields, and not normalized with them.
    - † a codebook per level ("codebook of each level", section 2.3.3; Eq. 2-3 write one C), of 16 codes, seeded by
      k-means on the first training batch; a code unused for 100 batches is restarted.
    - † the codes are held constant in the residuals of Eq. 3; L_ce reaches x_b straight through the sum of Eq. 4, and
      the codebooks learn from L_rq alone. L_rq is summed over levels and dimensions, and a mean over the batch.
    - † explicit: a type's embedding is projected to the width of x_b; L_ce goes straight through the sum of the types.
    - † the experts' outputs are mixed, and a linear head follows; the gate has no bias (Eq. 7).
    - † the hidden layer of the gate unit is as wide as x.
    - † no auxiliary network: the domain is part of x_b.

    Args:
        schema: the inputs.
        hidden: widths of the experts (mmoe), or of the network (pepnet).
        representation: implicit (the paper's default) or explicit (Table 2).
        backbone: mmoe or pepnet (Table 1).
        depth: D of the implicit representation (Figure 2); the explicit one has a level for each type of distribution.
        codebook_size: codes per level.
        shared_codebook: one codebook for all levels.
        alpha: α, the weight of L_rq (Eq. 11).
        beta: β of Eq. 5.
        experts: how many, for the backbone mmoe.
        normalization: of x: none (the paper), partitioned, batch or layer.
        auxiliary: whether STAR's auxiliary network is added.
        dropout: share of hidden activations dropped in training; not in the paper.
        inputs: see :class:`~multidomain.models.base.MultiDomainModel`.
    """

    def __init__(
        self,
        schema: InputSchema,
        *,
        hidden: Sequence[int] = (128, 64, 32),
        representation: str = "implicit",
        backbone: str = "mmoe",
        depth: int = 6,
        codebook_size: int = 16,
        shared_codebook: bool = False,
        alpha: float = 1.0,
        beta: float = 0.25,
        experts: int = 3,
        normalization: str = "none",
        auxiliary: bool = False,
        dropout: float = 0.0,
        **inputs: Unpack[InputOptions],
    ) -> None:
        super().__init__(schema, normalization=normalization, **inputs)
        hidden = check_widths("hidden", hidden)
        check_choice("representation", representation, ["implicit", "explicit"])
        check_choice("backbone", backbone, ["mmoe", "pepnet"])
        check_sizes(depth=depth, codebook_size=codebook_size, experts=experts)
        check_switches(shared_codebook=shared_codebook)
        check_not_negative(alpha=alpha, beta=beta)
        check_shares(dropout=dropout)
        self.alpha = alpha
        self.hierarchy = HierarchicalDistribution(
            schema=schema,
            embedding_dim=self.inputs.embedding_dim,
            unknown_rate=self.inputs.unknown_rate,
            explicit=representation == "explicit",
            depth=depth,
            codebook_size=codebook_size,
            shared_codebook=shared_codebook,
            beta=beta,
        )
        c, z = self.inputs.width + self.inputs.embedding_dim, self.hierarchy.features
        self.backbone: nn.Module
        if backbone == "mmoe":
            self.backbone = MixtureOfExperts(
                in_features=c, condition=z, hidden=hidden, experts=experts, dropout=dropout
            )
        else:
            self.backbone = DynamicWeights(in_features=c, condition=z, hidden=hidden, dropout=dropout)
        self.add_auxiliary(auxiliary)

    def forward(self, batch: Batch) -> Tensor:
        """Logits (B,)."""
        embedded = self.inputs(batch)
        x_b = self.hierarchy.described.vectors(batch.domain, embedded.fields)  # the domain first  (B, types, d)
        x = torch.cat([self.normalization(embedded.z, batch.domain), x_b[:, 0]], dim=1)  # (B, c + d)
        s_D, _, self.hierarchy.loss = self.hierarchy.quantized(x_b)  # Eq. 1-5  (B, z)
        logit: Tensor = self.backbone(x, s_D)  # Eq. 6-10  (B,)
        return self.with_auxiliary(logit, embedded)

    def auxiliary_loss(self) -> Tensor:
        """α L_rq (Eq. 11)."""
        loss, L_rq = super().auxiliary_loss(), self.hierarchy.loss
        return loss if L_rq is None else loss + self.alpha * L_rq

    def insights(self, batch: Batch) -> dict[str, Tensor]:
        """``codes``: int64 (B, D), the code of each level."""
        x_b = self.hierarchy.described.vectors(batch.domain, self.inputs(batch).fields)
        return {"codes": self.hierarchy.quantized(x_b)[1]}

    def insight_labels(self) -> dict[str, Sequence[str]]:
        """The codes by number, those included that no row has."""
        return {"codes": [str(code) for code in range(self.hierarchy.quantizer.codebooks.shape[1])]}

    def diagnostics(self) -> dict[str, float]:
        """How many codes of each level are in use."""
        return super().diagnostics() | self.hierarchy.diagnostics()


class MixtureOfExperts(nn.Module):
    """The backbone MMoE (section 2.4): ``ŷ = Σ G(s_D)_i E_i(x)`` (Eq. 8).

    Args:
        in_features: the width of x.
        condition: z.
        hidden: widths of each expert.
        experts: n.
        dropout: share of hidden activations dropped in training.
    """

    def __init__(
        self, *, in_features: int, condition: int, hidden: Sequence[int], experts: int, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.gate = nn.Linear(condition, experts, bias=False)
        self.experts = Experts(in_features=in_features, hidden=hidden, experts=experts, dropout=dropout)
        self.head = MLP(in_features=self.experts.features, hidden=[])
        he_(self.gate.weight, condition, relu=False)

    def forward(self, x: Tensor, s_D: Tensor) -> Tensor:
        """x and s_D (B, z) -> logits (B,)."""
        gate = torch.softmax(self.gate(s_D), dim=1)  # Eq. 7 of s_D  (B, n)
        mixed = mix(gate, self.experts(x))  # Eq. 8  (B, h)
        logit: Tensor = self.head(mixed)[:, 0]
        return logit


class DynamicWeights(nn.Module):
    """The backbone PEPNet (section 2.4): the input scaled by a gate unit, then a network.

    Args:
        in_features: the width of x.
        condition: z.
        hidden: widths of the network.
        dropout: share of hidden activations dropped in training.
    """

    def __init__(self, *, in_features: int, condition: int, hidden: Sequence[int], dropout: float = 0.0) -> None:
        super().__init__()
        self.gate = GateNU(in_features=condition, out_features=in_features)
        self.mlp = MLP(in_features=in_features, hidden=hidden, dropout=dropout)

    def forward(self, x: Tensor, s_D: Tensor) -> Tensor:
        """x and s_D (B, z) -> logits (B,)."""
        delta_b = self.gate(s_D)  # Eq. 10 of s_D  (B, c + d)
        logit: Tensor = self.mlp(delta_b * x)[:, 0]  # Eq. 9
        return logit
