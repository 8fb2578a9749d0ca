"""Modeling Task Relationships in Multi-task Learning with Multi-gate Mixture-of-Experts.

Jiaqi Ma, Zhe Zhao, Xinyang Yi, Jilin Chen, Lichan Hong, Ed H. Chi. KDD 2018. https://doi.org/10.1145/3219819.3220007
As a baseline of multi-domain models, a domain in the place of a task: Sheng et al. 2021 (STAR), section 4.1.

Notation: B rows, M domains, k the domain of a row, x the normalized embeddings (width c), n the number of experts,
f_i an expert, g^k and h^k the gate and the tower of domain k.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Unpack

import torch
from torch import Tensor

from ...batch import Batch
from ...errors import ConfigurationError
from ...inputs import InputSchema
from ...layers.domain_linear import DomainLinear, DomainMLP, Segments
from ...layers.embedding import KnownDomains
from ...layers.experts import Experts, mix
from ..base import InputOptions, MultiDomainModel, check_shares, check_sizes, check_widths


class MMoE(MultiDomainModel):
    """Experts shared by all domains, mixed by a gate of each domain's own, then a tower of each domain's own.

    All experts see every row (Eq. 7); of gates and towers a row meets its own domain's alone.

    What the papers leave open, as chosen here (†):

    - † four experts of 256-128-64 and towers 64-32-16: seven layers in all as in the DNN, and with three domains about
      one and a half times its weights. In STAR's comparison there are as many experts as domains, each with the seven
      layers of the Base model (``experts: 3`` for three domains, ``hidden: [512, 256, 128, 64, 32, 16]``,
      ``tower: []``); as the number of experts is a number here, the cost of a row does not grow with M.
    - The gates are ``softmax(W x)`` without hidden layer or normalization; † with a bias, 0 at the start.
    - † batch normalization of the embeddings, as in the Base model it is compared with (STAR, section 4.1).
    - † an unknown domain has a gate and a tower of its own, trained with 1 % of the rows; a domain never met in
      training counts as unknown.
    - The auxiliary network is on: STAR's comparison gives it to this model too (sections 4.1 and 4.3.3).

    Args:
        schema: the inputs.
        experts: n.
        hidden: widths of the layers of each expert.
        tower: widths of the hidden layers of each domain's tower; none makes it a single linear layer.
        normalization: batch, partitioned, layer or none.
        auxiliary: whether the auxiliary network is added.
        dropout: share of hidden activations dropped in training; not in the papers.
        inputs: see :class:`~multidomain.models.base.MultiDomainModel`.
    """

    def __init__(
        self,
        schema: InputSchema,
        *,
        experts: int = 4,
        hidden: Sequence[int] = (256, 128, 64),
        tower: Sequence[int] = (64, 32, 16),
        normalization: str = "batch",
        auxiliary: bool = True,
        dropout: float = 0.0,
        **inputs: Unpack[InputOptions],
    ) -> None:
        super().__init__(schema, normalization=normalization, **inputs)
        check_sizes(experts=experts)
        hidden, tower = check_widths("hidden", hidden), check_widths("tower", tower)
        if not hidden:
            raise ConfigurationError("hidden: an expert needs at least one layer, got []")
        check_shares(dropout=dropout)
        M, c = schema.domains, self.inputs.width
        self.known = KnownDomains(domains=M, unknown_rate=self.inputs.unknown_rate)
        self.experts = Experts(in_features=c, hidden=hidden, experts=experts, dropout=dropout)
        self.gates = DomainLinear.he(in_features=c, out_features=experts, domains=M, relu=False)
        self.towers = DomainMLP(in_features=hidden[-1], hidden=tower, domains=M, dropout=dropout)
        self.add_auxiliary(auxiliary)

    def forward(self, batch: Batch) -> Tensor:
        """Logits (B,)."""
        x = self.inputs(batch)
        segments = Segments.of(self.known(batch.domain), self.schema.domains)  # the rows by domain
        z = segments.sort(self.normalization(x.z, batch.domain))  # the paper's x  (B, c)
        gate = self._gate(z, segments)  # Eq. 8  (B, n)
        f_k = mix(gate, self.experts(z))  # Eq. 7  (B, h)
        y_k: Tensor = self.towers(f_k, segments)  # Eq. 6  (B, 1)
        return self.with_auxiliary(segments.unsort(y_k)[:, 0], x)

    def _gate(self, z: Tensor, segments: Segments) -> Tensor:
        """g^k(x) = softmax(W_gk x), Eq. 8, of each row's own domain: (B, c) -> (B, n), rows sorted."""
        return torch.softmax(self.gates.segmented(z, segments), dim=1)

    def insights(self, batch: Batch) -> dict[str, Tensor]:
        """``gate`` (B, n): how much each expert counts for a row."""
        segments = Segments.of(self.known(batch.domain), self.schema.domains)
        z = segments.sort(self.normalization(self.inputs(batch).z, batch.domain))
        return {"gate": segments.unsort(self._gate(z, segments))}
