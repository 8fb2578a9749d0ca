"""DeepFM: A Factorization-Machine based Neural Network for CTR Prediction.

Huifeng Guo, Ruiming Tang, Yunming Ye, Zhenguo Li, Xiuqiang He. IJCAI 2017. https://arxiv.org/abs/1703.04247

Notation: B rows, m fields, e_i the embedding of field i (width d), shared by the factorization machine and the deep
network; c = m·d.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Unpack

from torch import Tensor

from ...batch import Batch
from ...inputs import InputSchema
from ...layers.first_order import FirstOrder
from ...layers.mlp import MLP
from ..base import InputOptions, MultiDomainModel, check_shares, check_widths


class DeepFM(MultiDomainModel):
    """``y_FM + y_DNN`` on shared embeddings, without any feature engineering (Figure 1).

    What the paper leaves open, as chosen here (†):

    - † a history or bag is one field, its vector and its first-order weight the means over its ids; a numerical field's
      are its value times a learnt vector and a learnt weight.
    - † y_DNN is linear in its last layer (section 2.1 has a σ there, and Eq. 1 a second one around the sum).
    - † a normalization is for the deep network alone: the factorization machine has the embeddings as they are.
    - † first-order weights start at 0.
    - † the auxiliary network stands beside it, for the network does not see the domain otherwise.

    Args:
        schema: the inputs.
        hidden: widths of the deep layers (the paper: 400-400-400).
        normalization: of z before the deep network: none (the paper), batch, partitioned or layer.
        auxiliary: whether the auxiliary network is added.
        dropout: share of hidden activations dropped in training (the paper: 0.5).
        inputs: see :class:`~multidomain.models.base.MultiDomainModel`.
    """

    def __init__(
        self,
        schema: InputSchema,
        *,
        hidden: Sequence[int] = (400, 400, 400),
        normalization: str = "none",
        auxiliary: bool = True,
        dropout: float = 0.5,
        **inputs: Unpack[InputOptions],
    ) -> None:
        super().__init__(schema, normalization=normalization, **inputs)
        hidden = check_widths("hidden", hidden)
        check_shares(dropout=dropout)
        self.first_order = FirstOrder(schema=schema, sparse=self.inputs.embedding.table.sparse)
        self.deep = MLP(in_features=self.inputs.width, hidden=hidden, dropout=dropout)
        self.add_auxiliary(auxiliary)

    def forward(self, batch: Batch) -> Tensor:
        """Logits (B,)."""
        x = self.inputs(batch)
        y_fm = self.first_order(x.lookup, batch.numerical) + pairwise_products(x.fields)  # Eq. 2  (B,)
        a_0 = self.normalization(x.z, batch.domain)  # Eq. 3  (B, c)
        y_dnn: Tensor = self.deep(a_0)[:, 0]  # Eq. 4  (B,)
        return self.with_auxiliary(y_fm + y_dnn, x)  # Eq. 1; its sigmoid is in the loss


def pairwise_products(fields: Tensor) -> Tensor:
    """``Σ_{i<j} ⟨e_i, e_j⟩`` of (B, m, d) -> (B,).

    As ``½ (‖Σ_i e_i‖² - Σ_i ‖e_i‖²)``, which is linear in m (Rendle 2010, "Factorization Machines", Lemma 3.1).
    """
    total = fields.sum(1)  # (B, d)
    return 0.5 * (total.square().sum(1) - fields.square().sum((1, 2)))
