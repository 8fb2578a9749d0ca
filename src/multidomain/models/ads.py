"""Adaptive Domain Scaling for Personalized Sequential Modeling in Recommenders.

Zheng Chai, Hui Lu, Di Chen, Qin Ren, Yuchao Zheng, Xun Zhou. SIGIR 2025. https://arxiv.org/abs/2502.05523

Notation: B rows; E_D (B, d_D) describes the distribution of a row, by explicit and implicit domain features; E_S
(B, T, d_S) is its history, E_Q (B, d_Q) its candidate; s what the history means to the candidate; E_U, E_I and E_O are
the features of user, item and context.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Unpack

import torch
from torch import Tensor

from ..batch import Batch
from ..inputs import InputSchema
from ..layers.adaptive import QueryGenerator, SequenceGenerator
from ..layers.history import ATTENTIONS, HistoryOptions
from ..layers.mlp import MLP
from .base import MultiDomainModel, TableOptions, check_choice, check_own_history, check_shares, check_widths

__all__ = ["ADS", "QueryGenerator", "SequenceGenerator"]


class ADS(MultiDomainModel):
    """Personalized sequence (PSRG), personalized candidate (PCRG), target attention, MLP (Figure 2).

    The first three are the history encoder ``ads_…`` of :mod:`multidomain.layers.history`, which every architecture
    can have; its modules are :class:`SequenceGenerator` and :class:`QueryGenerator` of
    :mod:`multidomain.layers.adaptive` and the attentions of :mod:`multidomain.layers.attention`.

    What the paper leaves open, as chosen here (†):

    - † at the start the model *is* its backbone, which is what plugging in asks for: W_shared = I, η = 2 (as
      sigmoid(0) = 1/2), and the last layers of all three generators 0.
    - † d_h = 32; d_A = 32 for each of 4 heads, laid side by side and projected to the width of the history fields. DIN
      and CAN as described at their layers: CAN sums co-actions and has no softmax.
    - † padding is masked before the softmax; an empty history gives s = 0.
    - † E_D is the embedding of the domain beside the distribution features (``distribution: features``); E_S holds the
      embeddings of all history fields of an event, E_Q those of the candidate fields they share a vocabulary with. A
      history field whose candidate field is no input (it forms the domain) has zeros there, to be filled by PCRG.
    - † where the chunks do not divide T, they are of nearly one size; the oldest is the shorter one.
    - † E_D is among the other features E_O of Eq. 13, so that the plain backbone knows the domain, too: Table 3 takes
      away what adapts to the domain, not the domain.
    - † widths 512-256-128-64-32-16-1 for the network of Eq. 13, as in STAR; no normalization, so that training and
      evaluation agree. No auxiliary network: the model is given the domain.

    Args:
        schema: the inputs, with a history.
        hidden: widths of the hidden layers.
        backbone: din, mha or can (Table 2).
        psrg: whether the events are personalized (Table 3).
        pcrg: whether the candidate is personalized (Table 3).
        items_per_chunk: the events that share a query (Figures 4 and 5: 1, 2, 5, 10).
        eta: η, the scale of Eq. 3.
        generator_hidden: d_h.
        heads: of the backbone mha.
        attention_dim: d_A of mha; hidden width of din.
        normalization: of z: partitioned, batch, layer or none (the paper).
        auxiliary: whether STAR's auxiliary network is added.
        dropout: share of hidden activations dropped in training; not in the paper.
        distribution: E_D; see :mod:`multidomain.layers.distribution`.
        inputs: see :class:`~multidomain.models.base.MultiDomainModel`.
    """

    def __init__(
        self,
        schema: InputSchema,
        *,
        hidden: Sequence[int] = (512, 256, 128, 64, 32, 16),
        backbone: Literal["din", "mha", "can"] = "mha",
        psrg: bool = True,
        pcrg: bool = True,
        items_per_chunk: int = 1,
        eta: float = 2.0,
        generator_hidden: int = 32,
        heads: int = 4,
        attention_dim: int = 32,
        normalization: str = "none",
        auxiliary: bool = False,
        dropout: float = 0.0,
        distribution: str = "features",
        **inputs: Unpack[TableOptions],
    ) -> None:
        check_own_history(inputs)
        check_choice("backbone", backbone, ATTENTIONS)
        history = HistoryOptions(
            kind=backbone,
            psrg=psrg,
            pcrg=pcrg,
            items_per_chunk=items_per_chunk,
            hidden=generator_hidden,
            eta=eta,
            heads=heads,
            attention_dim=attention_dim,
        )
        super().__init__(schema, normalization=normalization, history=history, distribution=distribution, **inputs)
        hidden = check_widths("hidden", hidden)
        check_shares(dropout=dropout)
        width = self.inputs.width + self.inputs.describe_distribution()
        self.mlp = MLP(in_features=width, hidden=hidden, dropout=dropout)
        self.add_auxiliary(auxiliary)

    def forward(self, batch: Batch) -> Tensor:
        """Logits (B,)."""
        x = self.inputs(batch)  # Eq. 1-12: the history encoder reads E_D = x.condition and puts s among the fields
        others = self.normalization(x.z, batch.domain)  # (B, c)
        e_all = torch.cat([others, x.condition], dim=1)  # Eq. 13: s ⊕ E_U ⊕ E_I ⊕ E_O, of which E_D  (B, c + d_D)
        logit: Tensor = self.mlp(e_all)[:, 0]  # Eq. 13; its sigmoid is in the loss  (B,)
        return self.with_auxiliary(logit, x)

    def insights(self, batch: Batch) -> dict[str, Tensor]:
        """``attention`` (B, T), what each event counts for; with PSRG ``generated_weight`` (B, d_S²), W_private."""
        return self.inputs.insights(batch)
