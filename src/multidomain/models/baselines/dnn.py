"""The Base model of the STAR paper (Sheng et al. 2021, section 4.1): one network for all domains, all rows mixed.

Embedding, pooling and concatenation, batch normalization, a seven-layer fully-connected network. † As in STAR: widths
512-256-128-64-32-16-1, history pooled by mean (the paper: DIEN). The auxiliary network stands beside it, as the paper
has it for every model it compares (sections 4.1 and 4.3.3); without it the domain counts only where it is a feature.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from ...batch import Batch
from ...inputs import InputSchema
from ...layers.auxiliary import AuxiliaryNetwork
from ...layers.embedding import InputEmbedding
from ...layers.mlp import MLP
from ...layers.normalization import NORMALIZATIONS
from ...layers.normalization import normalization as make_normalization
from ..base import MultiDomainModel, check_choice, check_shares, check_sizes, check_switches, check_widths


class DNN(MultiDomainModel):
    """Embedding, normalization, fully-connected network, and the auxiliary network beside it.

    Args:
        schema: the inputs.
        embedding_dim: d.
        hidden: widths of the hidden layers.
        normalization: batch (the paper), partitioned, layer or none.
        auxiliary: whether the auxiliary network is added.
        dropout: share of hidden activations dropped in training; not in the paper.
        unknown_rate: share of ids replaced by "unknown" in training, and of domains in the auxiliary network.
        sparse: sparse gradients for the embedding table.
    """

    def __init__(
        self,
        schema: InputSchema,
        *,
        embedding_dim: int = 16,
        hidden: Sequence[int] = (512, 256, 128, 64, 32, 16),
        normalization: str = "batch",
        auxiliary: bool = True,
        dropout: float = 0.0,
        unknown_rate: float = 0.01,
        sparse: bool = True,
    ) -> None:
        super().__init__(schema)
        check_sizes(embedding_dim=embedding_dim)
        hidden = check_widths("hidden", hidden)
        check_choice("normalization", normalization, NORMALIZATIONS)
        check_shares(dropout=dropout, unknown_rate=unknown_rate)
        check_switches(auxiliary=auxiliary, sparse=sparse)
        domains = schema.domains
        self.embedding = InputEmbedding(schema=schema, features=embedding_dim, sparse=sparse, unknown_rate=unknown_rate)
        width = self.embedding.width
        self.normalization = make_normalization(normalization, features=width, domains=domains)
        self.mlp = MLP(in_features=width, hidden=hidden, dropout=dropout)
        self.auxiliary = (
            AuxiliaryNetwork(features=width, domains=domains, embedding_dim=embedding_dim, unknown_rate=unknown_rate)
            if auxiliary
            else None
        )

    def forward(self, batch: Batch) -> Tensor:
        """Logits (B,)."""
        z = self.embedding(batch).z  # (B, c)
        logit: Tensor = self.mlp(self.normalization(z, batch.domain))[:, 0]  # (B,)
        return logit if self.auxiliary is None else logit + self.auxiliary(z, batch.domain)
