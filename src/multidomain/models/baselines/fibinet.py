"""FiBiNET: Combining Feature Importance and Bilinear feature Interaction for Click-Through Rate Prediction.

Tongwen Huang, Zhiqi Zhang, Junlin Zhang. RecSys 2019. https://arxiv.org/abs/1905.09433

Notation: B rows, f fields, e_i the embedding of field i (width k, here d); E all of them, V the same reweighted by
importance; ∘ the inner product, ⊙ the element-wise product.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Unpack

import torch
from torch import Tensor, nn

from ...batch import Batch
from ...inputs import InputSchema
from ...layers.first_order import FirstOrder
from ...layers.mlp import MLP, he_
from ..base import InputOptions, MultiDomainModel, check_choice, check_shares, check_sizes, check_widths

BILINEARS = ("all", "each", "interaction")


class FiBiNET(MultiDomainModel):
    """Squeeze-and-excitation of the fields, bilinear interactions of both, a deep network, a linear part (Figure 1).

    What the paper leaves open, as chosen here (†):

    - † a history or bag is one field, its vector the mean over its ids; numbers are embeddings too, and have a weight
      of their own in the linear part.
    - † the importance of a field starts near 1: the second layer of the excitation has a bias, which starts there.
      (ReLU after two layers without one gives half of the fields no importance and no gradient at the start.)
    - † W of a bilinear interaction starts as the identity, so that training starts from element-wise products.
    - † a normalization is for the fields as the squeeze and the interactions see them; the linear part has the ids.
    - † the auxiliary network stands beside it, for the network does not see the domain otherwise.

    Args:
        schema: the inputs.
        hidden: widths of the deep layers (the paper: 400-400-400).
        bilinear: whose matrix W is: one for all fields, each field its own, or every interaction of two.
        reduction: r; the excitation has f / r units between its layers.
        normalization: none (the paper), batch, partitioned or layer.
        auxiliary: whether the auxiliary network is added.
        dropout: share of hidden activations dropped in training (the paper: 0.5).
        inputs: see :class:`~multidomain.models.base.MultiDomainModel`.
    """

    def __init__(
        self,
        schema: InputSchema,
        *,
        hidden: Sequence[int] = (400, 400, 400),
        bilinear: str = "interaction",
        reduction: int = 3,
        normalization: str = "none",
        auxiliary: bool = True,
        dropout: float = 0.5,
        **inputs: Unpack[InputOptions],
    ) -> None:
        super().__init__(schema, normalization=normalization, **inputs)
        hidden = check_widths("hidden", hidden)
        check_choice("bilinear", bilinear, BILINEARS)
        check_sizes(reduction=reduction)
        check_shares(dropout=dropout)
        f, d = len(self.inputs.fields), self.inputs.embedding_dim
        self.first_order = FirstOrder(schema=schema, sparse=self.inputs.embedding.table.sparse)
        self.senet = SENet(fields=f, reduction=reduction)
        self.of_E = Bilinear(fields=f, features=d, kind=bilinear)
        self.of_V = Bilinear(fields=f, features=d, kind=bilinear)
        self.deep = MLP(in_features=f * (f - 1) * d, hidden=hidden, dropout=dropout)
        self.add_auxiliary(auxiliary)

    def forward(self, batch: Batch) -> Tensor:
        """Logits (B,)."""
        x = self.inputs(batch)
        E = self.normalization(x.z, batch.domain).view_as(x.fields)  # (B, f, d)
        V = self.senet(E).unsqueeze(-1) * E  # Eq. 4: the reweighted fields  (B, f, d)
        p, q = self.of_E(E), self.of_V(V)  # Eq. 5-7  (B, f(f-1)/2, d) each
        c = torch.cat([p, q], dim=1).flatten(1)  # Eq. 8  (B, f(f-1)·d)
        y_d: Tensor = self.deep(c)[:, 0]  # Eq. 9-11  (B,)
        linear = self.first_order(x.lookup, batch.numerical)
        return self.with_auxiliary(linear + y_d, x)  # Eq. 12; its sigmoid is in the loss

    def insights(self, batch: Batch) -> dict[str, Tensor]:
        """``importance`` (B, f): A, of each field (Eq. 3)."""
        x = self.inputs(batch)
        with torch.no_grad():
            importance: Tensor = self.senet(self.normalization(x.z, batch.domain).view_as(x.fields))
        return {"importance": importance}

    def insight_labels(self) -> dict[str, Sequence[str]]:
        """The fields."""
        return {"importance": self.inputs.fields}


class SENet(nn.Module):
    """The importance of each field: squeeze, by the mean, and excitation, by two layers (section 3.2, Eq. 2-3).

    Args:
        fields: f.
        reduction: r; the inner layer has f / r units, at least one.
    """

    def __init__(self, *, fields: int, reduction: int) -> None:
        super().__init__()
        inner = max(fields // reduction, 1)
        self.inner = nn.Linear(fields, inner, bias=False)  # W_1
        self.outer = nn.Linear(inner, fields)  # W_2
        he_(self.inner.weight, fields, relu=True)
        he_(self.outer.weight, inner, relu=False)
        nn.init.ones_(self.outer.bias)

    def forward(self, E: Tensor) -> Tensor:
        """(B, f, d) -> A (B, f)."""
        Z = E.mean(-1)  # Eq. 2  (B, f)
        return torch.relu(self.outer(torch.relu(self.inner(Z))))  # Eq. 3


class Bilinear(nn.Module):
    """``p_ij = v_i W ⊙ v_j`` for every two fields i < j (section 3.3, Eq. 5-7).

    Args:
        fields: f.
        features: d.
        kind: all: one W; each: a W_i for each field i but the last; interaction: a W_ij for every two fields.
    """

    first: Tensor
    second: Tensor

    def __init__(self, *, fields: int, features: int, kind: str) -> None:
        super().__init__()
        pairs = torch.tensor(list(combinations(range(fields), 2)), dtype=torch.int64).view(-1, 2)
        self.register_buffer("first", pairs[:, 0].contiguous())
        self.register_buffer("second", pairs[:, 1].contiguous())
        self.kind = kind
        number = {"all": 1, "each": max(fields - 1, 0), "interaction": fields * (fields - 1) // 2}[kind]
        self.weight = nn.Parameter(torch.eye(features).repeat(number, 1, 1))  # (number, d, d)

    def forward(self, v: Tensor) -> Tensor:
        """(B, f, d) -> (B, f(f-1)/2, d)."""
        if self.kind == "interaction":
            left = _each(v[:, self.first], self.weight)  # Eq. 7: v_i W_ij
        elif self.kind == "each":
            left = _each(v[:, :-1], self.weight)[:, self.first]  # Eq. 6: v_i W_i
        else:
            left = (v @ self.weight[0])[:, self.first]  # Eq. 5: v_i W
        return left * v[:, self.second]


def _each(v: Tensor, weight: Tensor) -> Tensor:
    """(B, n, d), (n, d, d) -> (B, n, d): vector number i with matrix number i."""
    return torch.bmm(v.transpose(0, 1), weight).transpose(0, 1)
