"""First-order weights: a number per id and per numerical field, added up; the linear part of a model.

Cheng et al. 2016, "Wide & Deep Learning for Recommender Systems", section 3.1 (wᵀx); Guo et al. 2017, "DeepFM: A
Factorization-Machine based Neural Network for CTR Prediction", Eq. 2 (⟨w, x⟩).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..inputs import InputSchema
from .lookup import Lookup


class FirstOrder(nn.Module):
    """``⟨w, x⟩`` for x the one-hot categorical fields, the histories and bags as means of one-hots, and the numbers.

    It reads the ids that the embedding layer has looked up, so that an id drawn as "unknown" is unknown to both: the
    weight and the vector of an unknown id are trained together, as they are served. The weights start at zero; that of
    padding stays there, for its gradient is zero.

    Args:
        schema: the inputs.
        sparse: give the gradient of the ids' weights as a sparse tensor of the rows that were met.
    """

    def __init__(self, *, schema: InputSchema, sparse: bool = True) -> None:
        super().__init__()
        self.table = nn.Embedding(max(sum(schema.vocabularies.values()), 1), 1, sparse=sparse)
        nn.init.zeros_(self.table.weight)
        self.numerical_weight = nn.Parameter(torch.zeros(len(schema.numerical)))

    def forward(self, lookup: Lookup, numerical: Tensor) -> Tensor:
        """The ids of B rows, (B, K) -> (B,)."""
        ids = lookup.pooled(self.table).sum((1, 2))  # (B,)
        return ids + numerical @ self.numerical_weight
