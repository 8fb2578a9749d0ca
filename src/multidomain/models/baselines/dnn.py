"""The Base model of the STAR paper (Sheng et al. 2021, section 4.1): one network for all domains, all rows mixed.

Embedding, pooling and concatenation, batch normalization, a seven-layer fully-connected network. † As in STAR: widths
512-256-128-64-32-16-1, history pooled by mean (the paper: DIEN). The auxiliary network stands beside it, as the paper
has it for every model it compares (sections 4.1 and 4.3.3); without it the domain counts only where it is a feature.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Unpack

from torch import Tensor

from ...batch import Batch
from ...inputs import InputSchema
from ...layers.mlp import MLP
from ..base import InputOptions, MultiDomainModel, check_shares, check_widths


class DNN(MultiDomainModel):
    """Embedding, normalization, fully-connected network, and the auxiliary network beside it.

    Args:
        schema: the inputs.
        hidden: widths of the hidden layers.
        normalization: batch (the paper), partitioned, layer or none.
        auxiliary: whether the auxiliary network is added.
        dropout: share of hidden activations dropped in training; not in the paper.
        inputs: see :class:`~multidomain.models.base.MultiDomainModel`.
    """

    def __init__(
        self,
        schema: InputSchema,
        *,
        hidden: Sequence[int] = (512, 256, 128, 64, 32, 16),
        normalization: str = "batch",
        auxiliary: bool = True,
        dropout: float = 0.0,
        **inputs: Unpack[InputOptions],
    ) -> None:
        super().__init__(schema, normalization=normalization, **inputs)
        hidden = check_widths("hidden", hidden)
        check_shares(dropout=dropout)
        self.mlp = MLP(in_features=self.inputs.width, hidden=hidden, dropout=dropout)
        self.add_auxiliary(auxiliary)

    def forward(self, batch: Batch) -> Tensor:
        """Logits (B,)."""
        x = self.inputs(batch)
        z = self.normalization(x.z, batch.domain)  # (B, c)
        logit: Tensor = self.mlp(z)[:, 0]  # (B,)
        return self.with_auxiliary(logit, x)
