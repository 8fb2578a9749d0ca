"""Wide & Deep Learning for Recommender Systems.

Heng-Tze Cheng, Levent Koc, Jeremiah Harmsen, Tal Shaked, Tushar Chandra, Hrishi Aradhye, Glen Anderson, Greg Corrado,
Wei Chai, Mustafa Ispir, Rohan Anil, Zakaria Haque, Lichan Hong, Vihan Jain, Xiaobing Liu, Hemal Shah. DLRS 2016.
https://arxiv.org/abs/1606.07792

Notation: B rows, x the raw features (one-hot ids and numbers), φ(x) their cross-product transformations, a the
activations of the deep network.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate
from typing import Unpack

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...batch import Batch
from ...errors import ConfigurationError, unknown_key
from ...inputs import UNKNOWN, InputSchema
from ...layers.first_order import FirstOrder
from ...layers.mlp import MLP
from ..base import InputOptions, MultiDomainModel, check_shares, check_sizes, check_widths


class WideDeep(MultiDomainModel):
    """A linear model on ids and their crosses beside a deep network on embeddings, trained jointly (Figure 1).

    What the paper leaves open, as chosen here (†):

    - † which features are crossed is the data set's: `crosses` names groups of categorical fields (the paper crosses
      the installed apps with the shown one), by default none; then the wide part is one weight per id. A cross has a
      weight per combination, or per hash bucket where there are more combinations than `cross_buckets`. A combination
      with a missing or unknown id is 0.
    - † a history or bag counts in the wide part as the mean of its ids' weights; a number as itself times a weight.
    - † all wide weights start at 0; one optimizer for both parts (the paper: FTRL with L1, and AdaGrad).
    - † a normalization is for the deep network alone.
    - † the auxiliary network stands beside it, for the network does not see the domain otherwise.

    Args:
        schema: the inputs.
        hidden: widths of the deep layers (the paper: 1024-512-256).
        crosses: groups of two or more categorical fields, each a cross-product transformation.
        cross_buckets: the most weights a cross may have.
        normalization: of z before the deep network: none (the paper), batch, partitioned or layer.
        auxiliary: whether the auxiliary network is added.
        dropout: share of hidden activations dropped in training; not in the paper.
        inputs: see :class:`~multidomain.models.base.MultiDomainModel`.
    """

    def __init__(
        self,
        schema: InputSchema,
        *,
        hidden: Sequence[int] = (1024, 512, 256),
        crosses: Sequence[Sequence[str]] = (),
        cross_buckets: int = 100_000,
        normalization: str = "none",
        auxiliary: bool = True,
        dropout: float = 0.0,
        **inputs: Unpack[InputOptions],
    ) -> None:
        super().__init__(schema, normalization=normalization, **inputs)
        hidden = check_widths("hidden", hidden)
        check_sizes(cross_buckets=cross_buckets)
        check_shares(dropout=dropout)
        _check_crosses(crosses, schema)
        sparse = self.inputs.embedding.table.sparse
        self.wide = FirstOrder(schema=schema, sparse=sparse)
        self.crosses = (
            Crosses(schema=schema, crosses=crosses, buckets=cross_buckets, sparse=sparse) if crosses else None
        )
        self.deep = MLP(in_features=self.inputs.width, hidden=hidden, dropout=dropout)
        self.add_auxiliary(auxiliary)

    def forward(self, batch: Batch) -> Tensor:
        """Logits (B,)."""
        x = self.inputs(batch)
        wide: Tensor = self.wide(x.lookup, batch.numerical)  # w_wideᵀ x  (B,)
        if self.crosses is not None:
            wide = wide + self.crosses(x.lookup.ids)  # w_wideᵀ [x, φ(x)]  (B,)
        a_0 = self.normalization(x.z, batch.domain)  # (B, c)
        deep: Tensor = self.deep(a_0)[:, 0]  # Eq. 2, then w_deepᵀ a + b  (B,)
        return self.with_auxiliary(wide + deep, x)  # Eq. 3; its sigmoid is in the loss


class Crosses(nn.Module):
    """``w_φᵀ φ(x)``: a weight for each combination of ids of the crossed fields (Eq. 1), those of a cross in one block.

    Args:
        schema: the inputs.
        crosses: the fields of each cross.
        buckets: weights of a cross at most; its combinations are hashed where there are more.
        sparse: give the gradient of the weights as a sparse tensor.
    """

    def __init__(
        self, *, schema: InputSchema, crosses: Sequence[Sequence[str]], buckets: int, sparse: bool = True
    ) -> None:
        super().__init__()
        self._columns = [[schema.categorical.index(name) for name in cross] for cross in crosses]
        self._sizes = [[schema.vocabularies[name] for name in cross] for cross in crosses]
        self._buckets = [min(math.prod(sizes), buckets) for sizes in self._sizes]
        self.table = nn.Embedding(sum(self._buckets), 1, sparse=sparse)
        nn.init.zeros_(self.table.weight)

    def rows(self, ids: Tensor) -> Tensor:
        """(B, F or more) ids of the categorical fields -> (B, crosses), the weight of each combination."""
        starts = [0, *accumulate(self._buckets)]
        rows = []
        for columns, sizes, buckets, start in zip(self._columns, self._sizes, self._buckets, starts, strict=False):
            number = torch.zeros_like(ids[:, 0])
            for column, size in zip(columns, sizes, strict=True):
                number = number * size + ids[:, column]  # a number of its own for each combination
            rows.append(start + (number if buckets == math.prod(sizes) else _hashed(number, buckets)))
        return torch.stack(rows, dim=1)

    def forward(self, ids: Tensor) -> Tensor:
        """(B, F or more) -> (B,)."""
        known = torch.stack([(ids[:, columns] > UNKNOWN).all(1) for columns in self._columns], dim=1)  # (B, crosses)
        return F.embedding_bag(
            self.rows(ids),
            self.table.weight,
            mode="sum",
            per_sample_weights=known.to(self.table.weight.dtype),  # Eq. 1: 1 where every feature of the cross is 1
            sparse=self.table.sparse,
        )[:, 0]


def _hashed(number: Tensor, buckets: int) -> Tensor:
    """Int64 numbers spread over 0 … buckets - 1 (the multiplications wrap around)."""
    number = (number ^ (number >> 31)) * 0x1E35A7BD_9E3779B1
    return ((number ^ (number >> 29)) * 0x2545F491_4F6CDD1D >> 16).remainder(buckets)


def _check_crosses(crosses: Sequence[Sequence[str]], schema: InputSchema) -> None:
    if isinstance(crosses, str) or any(isinstance(cross, str) for cross in crosses):
        raise ConfigurationError(f"crosses must be a list of lists of fields such as [[user, item]], got {crosses!r}")
    for cross in crosses:
        if len(set(cross)) < 2 or len(set(cross)) < len(cross):
            raise ConfigurationError(f"crosses: a cross has two or more different fields, got {list(cross)!r}")
        for name in cross:
            if name not in schema.categorical:
                raise ConfigurationError(f"crosses: {unknown_key(name, schema.categorical)}")
