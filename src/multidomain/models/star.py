"""One Model to Serve All: Star Topology Adaptive Recommender for Multi-Domain CTR Prediction.

Xiang-Rong Sheng, Liqin Zhao, Guorui Zhou, Xinyao Ding, Binding Dai, Qiang Luo, Siran Yang, Jingshan Lv, Chi Zhang,
Hongbo Deng, Xiaoqiang Zhu. CIKM 2021. https://arxiv.org/abs/2101.11427

Notation: B rows, M domains, p the domain of a row, z the concatenated embeddings (width c), ⊗ the element-wise
product; a subscript p marks what each domain has for itself, a letter without one what all share.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Unpack

import torch
from torch import Tensor, nn

from ..batch import Batch
from ..inputs import InputSchema
from ..layers.domain_linear import FoldedFCN, Segments, StarFCN
from ..layers.mlp import MLP
from ..layers.normalization import NoNorm, PartitionedNorm
from .base import InputOptions, MultiDomainModel, check_choice, check_shares, check_widths


class Star(MultiDomainModel):
    """Partitioned normalization, star topology FCN, auxiliary network (section 3.2, Figure 4).

    What the paper leaves open, as chosen here (†):

    - † widths 512-256-128-64-32-16-1 for its seven layers; W He, **W_p = 1**, biases 0 at the start, so that training
      starts from the shared centre (two random factors would multiply to almost nothing over seven layers).
    - † partitioned normalization on z alone, with γ = γ_p = 1, β = β_p = 0; momentum 0.1; biased variances; a domain
      with fewer than eight rows in a batch uses its running moments.
    - † mixed batches, each domain's rows with that domain's moments (the paper draws one domain per batch).
    - † the auxiliary network takes z before normalization and has 64 hidden units; 1 % of its training rows carry the
      unknown domain.
    - † an unknown domain (id M) is served by the shared centre: W_p = 1, b_p = 0, γ_p = 1, β_p = 0, and moments pooled
      over the domains by the law of total variance. A domain never met in training counts as unknown.
    - † history is pooled by mean (the paper's Base uses DIEN).

    Args:
        schema: the inputs.
        hidden: widths of the hidden layers.
        normalization: partitioned (the paper), batch, layer or none (Table 4).
        fcn: star (the paper) or shared: one network for all domains (Table 3).
        auxiliary: whether s_a is added (Figure 6).
        dropout: share of hidden activations dropped in training; not in the paper.
        inputs: see :class:`~multidomain.models.base.MultiDomainModel`.
    """

    def __init__(
        self,
        schema: InputSchema,
        *,
        hidden: Sequence[int] = (512, 256, 128, 64, 32, 16),
        normalization: str = "partitioned",
        fcn: str = "star",
        auxiliary: bool = True,
        dropout: float = 0.0,
        **inputs: Unpack[InputOptions],
    ) -> None:
        super().__init__(schema, normalization=normalization, **inputs)
        hidden = check_widths("hidden", hidden)
        check_choice("fcn", fcn, ["star", "shared"])
        check_shares(dropout=dropout)
        M, c = schema.domains, self.inputs.width
        self.fcn: StarFCN | MLP
        if fcn == "star":
            self.fcn = StarFCN(in_features=c, hidden=hidden, domains=M, dropout=dropout)
        else:
            self.fcn = MLP(in_features=c, hidden=hidden, dropout=dropout)
        self.add_auxiliary(auxiliary)

    def forward(self, batch: Batch) -> Tensor:
        """Logits (B,)."""
        x = self.inputs(batch)  # §3.2: embeddings shared by all domains, pooled and concatenated  (B, c)
        segments = Segments.of(batch.domain, self.schema.domains)  # the rows by domain
        z_p = self.normalization(segments.sort(x.z), segments.domain)  # Eq. 3-4  (B, c)
        output: Tensor = self.fcn(z_p, segments) if isinstance(self.fcn, StarFCN) else self.fcn(z_p)  # Eq. 5-6  (B, 1)
        s_m = segments.unsort(output)[:, 0]  # (B,)
        return self.with_auxiliary(s_m, x)  # Eq. 7; its sigmoid is in the loss

    def serving_form(self) -> nn.Module:
        """W*_p and b*_p computed beforehand (section 4.4); a model with a shared FCN serves as it is."""
        return FoldedStar(self).eval() if isinstance(self.fcn, StarFCN) else self

    def insights(self, batch: Batch) -> dict[str, Tensor]:
        """``distance_from_centre`` (B, layers): ``||W_p - 1||`` of the row's domain, over the root of its size.

        The root mean square of what the domain changed of the shared weights, as a share of them.
        """
        if not isinstance(self.fcn, StarFCN):
            return {}
        distances = torch.stack([_distance(layer.domain_weight) for layer in self.fcn.layers], dim=1)  # (M+1, layers)
        return {"distance_from_centre": distances[batch.domain.long()]}


def _distance(weight: Tensor) -> Tensor:
    """Root mean square of ``W_p - 1`` for each domain and, last, the unknown one, which is the centre: (M+1,)."""
    own = torch.stack([(private - 1).square().mean().sqrt() for private in weight.detach()])
    return torch.cat([own, own.new_zeros(1)])


class FoldedStar(nn.Module):
    """STAR as it is served: a plain network per domain, and one for the unknown domain (section 4.4).

    ``W*_p`` and ``b*_p`` are computed once; partitioned normalization, in evaluation ``scale_p z + shift_p``, is folded
    into the first layer.

    Args:
        star: a trained model; its weights are copied.
    """

    def __init__(self, star: Star) -> None:
        super().__init__()
        assert isinstance(star.fcn, StarFCN)
        self.domains, self.logit_offset = star.schema.domains, star.logit_offset
        self.inputs = copy.deepcopy(star.inputs)
        self.auxiliary = copy.deepcopy(star.auxiliary)
        if isinstance(star.normalization, PartitionedNorm):
            self.normalization: nn.Module = NoNorm()
            self.fcn = FoldedFCN(star.fcn, star.normalization.affine())
        else:
            self.normalization = copy.deepcopy(star.normalization)
            self.fcn = FoldedFCN(star.fcn)

    def forward(self, batch: Batch) -> Tensor:
        """Logits (B,)."""
        x = self.inputs(batch)
        segments = Segments.of(batch.domain, self.domains)
        z = self.normalization(segments.sort(x.z), segments.domain)  # (B, c)
        s_m = segments.unsort(self.fcn(z, segments))[:, 0]  # (B,)
        s_a: Tensor | float = 0.0 if self.auxiliary is None else self.auxiliary(x.z, x.condition)
        return s_m + s_a + (self.logit_offset or 0.0)
