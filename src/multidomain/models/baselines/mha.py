"""Multi-head target attention: "Attention Is All You Need", with the candidate as the only query.

Ashish Vaswani, Noam Shazeer, Niki Parmar, Jakob Uszkoreit, Llion Jones, Aidan N. Gomez, Łukasz Kaiser,
Illia Polosukhin. NIPS 2017. https://arxiv.org/abs/1706.03762

As Chai et al. 2025 (ADS, https://arxiv.org/abs/2502.05523, Eq. 8-12) use it: queries from the candidate, keys and
values from the history, d_A wide for each head.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Unpack

from torch import Tensor

from ...batch import Batch
from ...inputs import InputSchema
from ...layers.history import HistoryOptions
from ...layers.mlp import MLP
from ..base import MultiDomainModel, TableOptions, check_own_history, check_shares, check_widths


class MHA(MultiDomainModel):
    """Multi-head attention of the candidate to the history, then a fully-connected network.

    The history is encoded by :class:`~multidomain.layers.attention.MultiHeadAttention`, the one of ``history: mha``;
    what the papers leave open, as chosen here (†):

    - † one layer, and neither positions, residual path nor layer normalization (Vaswani et al., section 3): ADS has
      none of them.
    - † 4 heads of d_A = 32; W_O (Vaswani et al., section 3.2.2) projects them to the width of the history fields.
    - † padding is masked before the softmax; an empty history gives zeros.
    - † widths 512-256-128-64-32-16-1, as every model here.
    - † the auxiliary network stands beside it, as STAR has it for every model compared: nothing else sees the domain.

    Args:
        schema: the inputs, with a history.
        hidden: widths of the hidden layers.
        heads: the number of heads.
        attention_dim: d_A.
        normalization: of z: partitioned, batch, layer or none.
        auxiliary: whether STAR's auxiliary network is added.
        dropout: share of hidden activations dropped in training; not in the papers.
        distribution: what the auxiliary network reads; see :mod:`multidomain.layers.distribution`.
        inputs: see :class:`~multidomain.models.base.MultiDomainModel`.
    """

    def __init__(
        self,
        schema: InputSchema,
        *,
        hidden: Sequence[int] = (512, 256, 128, 64, 32, 16),
        heads: int = 4,
        attention_dim: int = 32,
        normalization: str = "none",
        auxiliary: bool = True,
        dropout: float = 0.0,
        distribution: str = "domain",
        **inputs: Unpack[TableOptions],
    ) -> None:
        check_own_history(inputs)
        history = HistoryOptions(kind="mha", heads=heads, attention_dim=attention_dim)
        super().__init__(schema, normalization=normalization, history=history, distribution=distribution, **inputs)
        hidden = check_widths("hidden", hidden)
        check_shares(dropout=dropout)
        self.mlp = MLP(in_features=self.inputs.width, hidden=hidden, dropout=dropout)
        self.add_auxiliary(auxiliary)

    def forward(self, batch: Batch) -> Tensor:
        """Logits (B,)."""
        x = self.inputs(batch)  # ADS, Eq. 8-12: softmax(Q Kᵀ / √d_A) V of each head, among the other fields
        z = self.normalization(x.z, batch.domain)  # (B, c)
        logit: Tensor = self.mlp(z)[:, 0]  # (B,)
        return self.with_auxiliary(logit, x)

    def insights(self, batch: Batch) -> dict[str, Tensor]:
        """``attention`` (B, T), the mean of the heads."""
        return self.inputs.insights(batch)
