"""Cross-stitch Networks for Multi-task Learning.

Ishan Misra, Abhinav Shrivastava, Abhinav Gupta, Martial Hebert. CVPR 2016. https://arxiv.org/abs/1604.03539
As a baseline of multi-domain models, a domain in the place of a task: Sheng et al. 2021 (STAR), section 4.1.

Notation: B rows, M domains, p the domain of a row, z the normalized embeddings (width c), x_q the activations of a row
in the network of domain q, x̃_q those after the cross-stitch unit, α the weights of the unit.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Unpack

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...batch import Batch
from ...inputs import InputSchema
from ...layers.domain_linear import DomainLinear, Segments
from ...layers.dropout import Dropout
from ...layers.embedding import KnownDomains
from ...layers.experts import mix
from ..base import InputOptions, MultiDomainModel, check_shares, check_widths


class CrossStitchUnit(nn.Module):
    """``x̃_p = Σ_q α_pq x_q`` (Eq. 1 for any number of networks).

    † At the start α_pp = ``own`` and the other weights share 1 - own, so that a unit begins as a convex combination
    near the identity (the paper starts the weights in the range [0, 1], with two networks).

    Args:
        networks: M + 1, the last being that of the unknown domain.
        own: α_pp at the start.
    """

    def __init__(self, *, networks: int, own: float = 0.9) -> None:
        super().__init__()
        alpha = torch.full((networks, networks), (1 - own) / (networks - 1))
        self.domain_alpha = nn.Parameter(alpha.fill_diagonal_(own))

    def every(self, x: Tensor) -> Tensor:
        """(M+1, B, h) -> (M+1, B, h): what the unit hands to each network."""
        return torch.mm(self.domain_alpha, x.flatten(1)).view_as(x)

    def own(self, x: Tensor, domain: Tensor) -> Tensor:
        """(M+1, B, h), (B,) -> (B, h): what it hands to the network of each row's own domain."""
        return mix(F.embedding(domain, self.domain_alpha), x)


class CrossStitch(MultiDomainModel):
    """A network for each domain; after every hidden layer a cross-stitch unit mixes the activations of all of them.

    By Eq. 1 the networks of all domains work on every row, so the cost of a row grows with M; the last unit and the
    output are computed for the row's own domain alone.

    What the papers leave open, as chosen here (†):

    - † widths 256-128-64-32-16: half those of the DNN and a layer less, because there are M + 1 networks. STAR's
      comparison gives each the seven layers of the Base model: ``hidden: [512, 256, 128, 64, 32, 16]``.
    - † one unit per hidden layer, after the ReLU (the paper's stand after activation and pooling).
    - † near the identity at the start: see :class:`CrossStitchUnit`; one learning rate for all weights (the paper has a
      larger one for the units).
    - † all networks are trained from the start together (the paper may start from networks trained on one task each).
    - † batch normalization of the embeddings, as in the Base model it is compared with (STAR, section 4.1).
    - † an unknown domain has a network of its own, stitched to the others and trained with 1 % of the rows; a domain
      never met in training counts as unknown.
    - The auxiliary network is on: STAR's comparison gives it to this model too (sections 4.1 and 4.3.3).

    Args:
        schema: the inputs.
        hidden: widths of the hidden layers of each domain's network.
        own: weight of a domain's own network in the units at the start.
        normalization: batch, partitioned, layer or none.
        auxiliary: whether the auxiliary network is added.
        dropout: share of hidden activations dropped in training; not in the papers.
        inputs: see :class:`~multidomain.models.base.MultiDomainModel`.
    """

    layers: Sequence[DomainLinear]
    units: Sequence[CrossStitchUnit]

    def __init__(
        self,
        schema: InputSchema,
        *,
        hidden: Sequence[int] = (256, 128, 64, 32, 16),
        own: float = 0.9,
        normalization: str = "batch",
        auxiliary: bool = True,
        dropout: float = 0.0,
        **inputs: Unpack[InputOptions],
    ) -> None:
        super().__init__(schema, normalization=normalization, **inputs)
        hidden = check_widths("hidden", hidden)
        check_shares(own=own, dropout=dropout)
        M, c = schema.domains, self.inputs.width
        self.known = KnownDomains(domains=M, unknown_rate=self.inputs.unknown_rate)
        widths = [c, *hidden]
        self.layers = nn.ModuleList(  # type: ignore[assignment]
            DomainLinear.he(in_features=i, out_features=o, domains=M) for i, o in pairwise(widths)
        )
        self.units = nn.ModuleList(CrossStitchUnit(networks=M + 1, own=own) for _ in hidden)  # type: ignore[assignment]
        self.dropout = Dropout(share=dropout)
        self.output = DomainLinear.he(in_features=widths[-1], out_features=1, domains=M, relu=False)
        self.add_auxiliary(auxiliary)

    def forward(self, batch: Batch) -> Tensor:
        """Logits (B,)."""
        x = self.inputs(batch)
        segments = Segments.of(self.known(batch.domain), self.schema.domains)  # the rows by domain
        h = segments.sort(self.normalization(x.z, batch.domain))  # one input for all networks  (B, c)
        for number, (layer, unit) in enumerate(zip(self.layers, self.units, strict=True), start=1):
            x_q = self.dropout(torch.relu(layer.every(h)))  # the activations of every network  (M+1, B, w)
            h = unit.every(x_q) if number < len(self.layers) else unit.own(x_q, segments.domain)  # Eq. 1
        logit = segments.unsort(self.output.segmented(h, segments))[:, 0]  # (B,)
        return self.with_auxiliary(logit, x)
