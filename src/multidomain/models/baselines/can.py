"""CAN: Feature Co-Action for Click-Through Rate Prediction.

Weijie Bian, Kailun Wu, Lejian Ren, Qi Pi, Yujing Zhang, Can Xiao, Xiang-Rong Sheng, Yong-Nan Zhu, Zhangming Chan,
Na Mou, Xinchen Luo, Shiming Xiang, Guorui Zhou, Xiaoqiang Zhu, Hongbo Deng. WSDM 2022.
https://arxiv.org/abs/2011.05625

Notation: P_user is the embedding of a behaviour, P_item the parameters that the candidate stands for, a small network.
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


class CAN(MultiDomainModel):
    """Every event of the history goes through the candidate's network, then a fully-connected network on their sum.

    The history is encoded by :class:`~multidomain.layers.attention.CoActionAttention`, the one of ``history: can``;
    where the paper leaves something open or the comparison asks for another choice (†), beside what is said there:

    - † the co-action stands beside the mean of the history, the plainest of the networks that the authors add it to (in
      the paper: DIEN). With ``history: can``, and in ADS, it is all that is known of the history. There are no weights
      for the softmax of ADS (Eq. 12): the paper sums.
    - † P_item is generated from the embeddings of the candidate, which events share; the paper gives ids a second
      embedding for it. Orders share their parameters, as in the authors' code.
    - † the history fields of an event form one P_user; the paper has a network for each field.
    - † widths 512-256-128-64-32-16-1, as every model here; no batch normalization.
    - † the auxiliary network stands beside it, as STAR has it for every model compared: nothing else sees the domain.

    Args:
        schema: the inputs, with a history.
        hidden: widths of the hidden layers.
        micro: widths of the layers of the candidate's network.
        orders: the highest power of an event that goes through it.
        normalization: of z: partitioned, batch, layer or none.
        auxiliary: whether STAR's auxiliary network is added.
        dropout: share of hidden activations dropped in training; not in the paper.
        distribution: what the auxiliary network reads; see :mod:`multidomain.layers.distribution`.
        inputs: see :class:`~multidomain.models.base.MultiDomainModel`.
    """

    def __init__(
        self,
        schema: InputSchema,
        *,
        hidden: Sequence[int] = (512, 256, 128, 64, 32, 16),
        micro: Sequence[int] = (8, 4),
        orders: int = 3,
        normalization: str = "none",
        auxiliary: bool = True,
        dropout: float = 0.0,
        distribution: str = "domain",
        **inputs: Unpack[TableOptions],
    ) -> None:
        micro = check_widths("micro", micro)
        check_own_history(inputs)
        history = HistoryOptions(kind="can", micro=micro, orders=orders, mean=True)
        super().__init__(schema, normalization=normalization, history=history, distribution=distribution, **inputs)
        hidden = check_widths("hidden", hidden)
        check_shares(dropout=dropout)
        self.mlp = MLP(in_features=self.inputs.width, hidden=hidden, dropout=dropout)
        self.add_auxiliary(auxiliary)

    def forward(self, batch: Batch) -> Tensor:
        """Logits (B,)."""
        x = self.inputs(batch)  # section 4: Σ F(P_user, P_item), among the other fields
        z = self.normalization(x.z, batch.domain)  # (B, c)
        logit: Tensor = self.mlp(z)[:, 0]  # (B,)
        return self.with_auxiliary(logit, x)

    def insights(self, batch: Batch) -> dict[str, Tensor]:
        """``attention`` (B, T): the length of each event's co-action, as a share of their sum."""
        return self.inputs.insights(batch)
