"""Deep Interest Network for Click-Through Rate Prediction.

Guorui Zhou, Chengru Song, Xiaoqiang Zhu, Ying Fan, Han Zhu, Xiao Ma, Yanghui Yan, Junqi Jin, Han Li, Kun Gai. KDD 2018.
https://arxiv.org/abs/1706.06978

Notation: e_1 … e_H are the embeddings of the behaviours of a user, v_A that of the candidate ad, a(e, v) the activation
unit.
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


class DIN(MultiDomainModel):
    """Local activation of the history by the candidate, then a fully-connected network (section 4.3, Figure 2).

    The history is encoded by :class:`~multidomain.layers.attention.DINAttention`, the one of ``history: din``; what the
    paper leaves open, as chosen here (†), beside what is said there:

    - † the weights are normalized by a softmax over the history, as ADS has its backbones (Eq. 12); the paper sums with
      the weights as they are (section 4.3), which ``softmax: false`` does.
    - † the activation unit has PReLU; Dice, whose moments are those of a batch, is left out, and so are the mini-batch
      aware regularization (unknown ids are trained instead) and, in the network, PReLU in favour of ReLU.
    - † widths 512-256-128-64-32-16-1 instead of 200-80-2, as every model here.
    - † the auxiliary network stands beside it, as STAR has it for every model compared: nothing else sees the domain.

    Args:
        schema: the inputs, with a history.
        hidden: widths of the hidden layers.
        attention_dim: width of the activation unit (36 in Figure 2).
        softmax: whether the weights are normalized.
        normalization: of z: partitioned, batch, layer or none (the paper).
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
        attention_dim: int = 36,
        softmax: bool = True,
        normalization: str = "none",
        auxiliary: bool = True,
        dropout: float = 0.0,
        distribution: str = "domain",
        **inputs: Unpack[TableOptions],
    ) -> None:
        check_own_history(inputs)
        history = HistoryOptions(kind="din", attention_dim=attention_dim, softmax=softmax)
        super().__init__(schema, normalization=normalization, history=history, distribution=distribution, **inputs)
        hidden = check_widths("hidden", hidden)
        check_shares(dropout=dropout)
        self.mlp = MLP(in_features=self.inputs.width, hidden=hidden, dropout=dropout)
        self.add_auxiliary(auxiliary)

    def forward(self, batch: Batch) -> Tensor:
        """Logits (B,)."""
        x = self.inputs(batch)  # Eq. 3: v_U(A) = Σ a(e_j, v_A) e_j, among the other fields
        z = self.normalization(x.z, batch.domain)  # (B, c)
        logit: Tensor = self.mlp(z)[:, 0]  # (B,)
        return self.with_auxiliary(logit, x)

    def insights(self, batch: Batch) -> dict[str, Tensor]:
        """``attention`` (B, T): a(e_j, v_A)."""
        return self.inputs.insights(batch)
