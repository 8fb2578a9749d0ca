"""Multitask Learning: the Shared Bottom model.

Rich Caruana. Machine Learning 28, 1997. https://doi.org/10.1023/A:1007379606734
As a baseline of multi-domain models: Sheng et al. 2021 (STAR), section 4.1; Li et al. 2022 (AdaptDHM), section 4.1.2.

Notation: B rows, M domains, p the domain of a row, z the concatenated embeddings (width c), f the bottom shared by all
domains, h_p the tower of domain p.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Unpack

from torch import Tensor

from ...batch import Batch
from ...inputs import InputSchema
from ...layers.domain_linear import DomainMLP, Segments
from ...layers.embedding import KnownDomains
from ...layers.mlp import HiddenLayers
from ..base import InputOptions, MultiDomainModel, check_shares, check_widths


class SharedBottom(MultiDomainModel):
    """Layers shared by all domains below, a tower for each domain above: ``h_p(f(z))``.

    What the papers leave open, as chosen here (†):

    - † where the shared part ends. STAR and AdaptDHM share the embeddings alone and give each domain a whole network:
      ``hidden: []``, ``tower: [512, 256, 128, 64, 32, 16]``. The default shares the three wide layers, so that seven
      layers in all cost what the DNN costs and a small domain has few weights to learn.
    - † batch normalization of z, as in the Base model it is compared with (STAR, section 4.1).
    - † an unknown domain has a tower of its own, trained with 1 % of the rows; a domain never met in training counts as
      unknown.
    - The auxiliary network is on: STAR's comparison gives it to this model too (sections 4.1 and 4.3.3).

    Args:
        schema: the inputs.
        hidden: widths of the layers of the shared bottom; none shares the embeddings alone.
        tower: widths of the hidden layers of each domain's tower.
        normalization: batch, partitioned, layer or none.
        auxiliary: whether the auxiliary network is added.
        dropout: share of hidden activations dropped in training; not in the papers.
        inputs: see :class:`~multidomain.models.base.MultiDomainModel`.
    """

    def __init__(
        self,
        schema: InputSchema,
        *,
        hidden: Sequence[int] = (512, 256, 128),
        tower: Sequence[int] = (64, 32, 16),
        normalization: str = "batch",
        auxiliary: bool = True,
        dropout: float = 0.0,
        **inputs: Unpack[InputOptions],
    ) -> None:
        super().__init__(schema, normalization=normalization, **inputs)
        hidden, tower = check_widths("hidden", hidden), check_widths("tower", tower)
        check_shares(dropout=dropout)
        M, c = schema.domains, self.inputs.width
        self.known = KnownDomains(domains=M, unknown_rate=self.inputs.unknown_rate)
        self.bottom = HiddenLayers(in_features=c, hidden=hidden, dropout=dropout)
        self.towers = DomainMLP(in_features=self.bottom.features, hidden=tower, domains=M, dropout=dropout)
        self.add_auxiliary(auxiliary)

    def forward(self, batch: Batch) -> Tensor:
        """Logits (B,)."""
        x = self.inputs(batch)
        z = self.normalization(x.z, batch.domain)  # (B, c)
        f: Tensor = self.bottom(z)  # f(z): all rows, whatever their domain  (B, h)
        segments = Segments.of(self.known(batch.domain), self.schema.domains)  # the rows by domain
        output: Tensor = self.towers(segments.sort(f), segments)  # h_p(f(z)): the row's own tower alone  (B, 1)
        logit = segments.unsort(output)[:, 0]  # (B,)
        return self.with_auxiliary(logit, x)
