"""AdaptDHM: Adaptive Distribution Hierarchical Model for Multi-Domain CTR Prediction.

Jinyun Li, Huiwen Zheng, Yuanlin Liu, Minfang Lu, Lixia Wu, Haoyuan Hu. WWW 2023 Companion.
https://arxiv.org/abs/2211.12105

Notation: B rows (the paper: n), K clusters, e the vector of a row that is routed (width c), C the centres of the
clusters, c_j one of them, r_ij the share of row i in cluster j, I routing iterations, b the number of the batch, ⊗ the
element-wise product; a subscript s marks weights that all rows share, a subscript j those of one cluster.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from itertools import combinations
from typing import Unpack

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..batch import Batch
from ..errors import ConfigurationError
from ..inputs import InputSchema
from ..layers.domain_linear import FoldedFCN, Segments, StarFCN
from ..layers.inputs import Inputs
from ..layers.synchronised import total
from .base import (
    InputOptions,
    MultiDomainModel,
    check_choice,
    check_positive,
    check_shares,
    check_sizes,
    check_switches,
    check_widths,
)


class DynamicRouting(nn.Module):
    """DLM dynamic routing (section 3.3, Algorithm 1): to which cluster a row belongs.

    In training the centres start where the last batch left them, move I times within the batch and keep the share
    1 - β of that; in evaluation they stay. No gradient goes through it. Every step is a product of matrices: nothing of
    the size B×K×c is made.

    † e is scaled to unit length and the similarities are divided by a temperature: the cosine that the paper wants.
    Taken by the letter, a short e makes every r_ij about 1/K, all centres become the mean of the batch, and the rows
    are routed by rounding errors. † A centre without any row, or a batch without any, leaves the centre where it is.

    Several processes that train together (``torch.distributed``) share their sums, so that they keep the same centres.

    Args:
        features: c.
        clusters: K.
        iterations: I.
        momentum: β.
        paper_literal: neither unit length nor temperature.
        temperature: what the similarities are divided by; without effect if ``paper_literal``.

    Attributes:
        centres: (K, c), of unit length.
        occupancy: (K,), the share of the training rows in each cluster, averaged over batches as the centres are.
    """

    centres: Tensor
    occupancy: Tensor

    def __init__(
        self,
        *,
        features: int,
        clusters: int,
        iterations: int = 3,
        momentum: float = 0.9,
        paper_literal: bool = False,
        temperature: float = 0.1,
    ) -> None:
        super().__init__()
        self.iterations, self.momentum = iterations, momentum
        self.paper_literal, self.temperature = paper_literal, 1.0 if paper_literal else temperature
        self.register_buffer("centres", _norm(torch.randn(clusters, features)))
        self.register_buffer("occupancy", torch.full((clusters,), 1 / clusters))

    @torch.no_grad()
    def forward(self, e: Tensor) -> Tensor:
        """(B, c) -> r (B, K).

        Evaluation computes in double precision: a row halfway between two centres then goes the same way whatever
        rows are beside it, as sums in another order do not differ enough to turn it.
        """
        with torch.autocast(e.device.type, enabled=False):
            e = e.float() if self.training else e.double()
            if not self.paper_literal:
                e = _norm(e)
            return self._learn(e) if self.training else self._coefficients(e, self.centres.double())

    def _coefficients(self, e: Tensor, centres: Tensor) -> Tensor:
        s = e @ centres.T  # Eq. 1  (B, K)
        return torch.softmax(s / self.temperature, dim=1)  # Eq. 2  (B, K)

    def _learn(self, e: Tensor) -> Tensor:
        centres = self.centres  # line 1: inherited from batch b-1  (K, c)
        for _ in range(self.iterations):
            r = self._coefficients(e, centres)  # lines 3-4
            centres = _norm(total(r.T @ e))  # line 5, Eq. 3-4  (K, c)
        self.centres.copy_(_norm(self.momentum * self.centres + (1 - self.momentum) * centres))  # line 7, Eq. 5
        self._count(r.argmax(1))
        return r

    def _count(self, cluster: Tensor) -> None:
        rows = total(torch.bincount(cluster, minlength=len(self.occupancy)).to(self.occupancy.dtype))
        every = rows.sum()
        self.occupancy.lerp_(rows / every.clamp(min=1), (1 - self.momentum) * (every > 0))


class AdaptDHM(MultiDomainModel):
    """Dynamic routing to a cluster, and a network per cluster around a shared one (Figure 1).

    What the paper leaves open, as chosen here (†):

    - † e is scaled to unit length and the similarities are divided by the temperature 0.1; ``paper_literal`` keeps the
      letter of Eq. 1-2 (see :class:`DynamicRouting`). e is z before normalization.
    - † a row goes to the cluster of its largest r_ij, hard, in training and in evaluation ("updated only by their
      corresponding samples"; Eq. 7 names one cluster). Only that cluster's network is computed.
    - † biases are b_s + b_j (the paper shows none); W_s He, **W_j = 1**, biases 0 at the start, as in STAR: with two
      random factors the signal dies over the layers.
    - † the auxiliary network of STAR stands beside it by default, as beside every model that would not see the domain
      otherwise; its paper gives it to all it compares.
    - † history is pooled by mean.

    Args:
        schema: the inputs.
        hidden: widths of the hidden layers.
        clusters: K; 9 for the paper's public data, 3 for its industrial data.
        routing: instance: e is all fields; user: the fields that the schema says are the user's, and the history
            (section 3.3).
        iterations: I.
        momentum: β of Eq. 5.
        temperature: what cosines are divided by before the softmax of Eq. 2.
        paper_literal: Eq. 1-2 with e as it is and without temperature.
        normalization: of z, before the networks; the paper has none.
        auxiliary: whether the auxiliary network is added.
        dropout: share of hidden activations dropped in training; not in the paper.
        inputs: see :class:`~multidomain.models.base.MultiDomainModel`.
    """

    fcn: StarFCN | FoldedFCN

    def __init__(
        self,
        schema: InputSchema,
        *,
        hidden: Sequence[int] = (512, 256, 128, 64, 32),
        clusters: int = 9,
        routing: str = "instance",
        iterations: int = 3,
        momentum: float = 0.9,
        temperature: float = 0.1,
        paper_literal: bool = False,
        normalization: str = "none",
        auxiliary: bool = True,
        dropout: float = 0.0,
        **inputs: Unpack[InputOptions],
    ) -> None:
        super().__init__(schema, normalization=normalization, **inputs)
        hidden = check_widths("hidden", hidden)
        check_sizes(clusters=clusters, iterations=iterations)
        check_choice("routing", routing, ["instance", "user"])
        check_shares(momentum=momentum, dropout=dropout)
        check_switches(paper_literal=paper_literal)
        check_positive(temperature=temperature)
        fields = self.inputs.fields
        self.routed = list(fields) if routing == "instance" else _of_the_user(fields, schema)
        self._positions = slice(None) if routing == "instance" else [fields.index(name) for name in self.routed]
        self.routing = DynamicRouting(
            features=len(self.routed) * self.inputs.embedding_dim,
            clusters=clusters,
            iterations=iterations,
            momentum=momentum,
            paper_literal=paper_literal,
            temperature=temperature,
        )
        self.clusters = clusters
        self.fcn = StarFCN(in_features=self.inputs.width, hidden=hidden, domains=clusters, dropout=dropout)
        self.add_auxiliary(auxiliary)

    def forward(self, batch: Batch) -> Tensor:
        """Logits (B,)."""
        x = self.inputs(batch)  # §3.2: embeddings shared by all domains, pooled and concatenated  (B, c)
        segments = Segments.of(self._cluster(x), self.clusters)  # the rows by cluster
        z = self.normalization(x.z, batch.domain)  # (B, c)
        y: Tensor = self.fcn(segments.sort(z), segments)  # Eq. 6-7: W_s ⊗ W_j in every layer  (B, 1)
        logit = segments.unsort(y)[:, 0]  # (B,); the sigmoid of Eq. 7 is in the loss, Eq. 8
        return self.with_auxiliary(logit, x)

    def _cluster(self, x: Inputs) -> Tensor:
        """The cluster of each row: (B,) of 0 … K-1."""
        e = x.fields[:, self._positions].flatten(1).detach()  # Fig. 1: no gradient through the routing  (B, c)
        r: Tensor = self.routing(e)  # Algorithm 1, Eq. 1-5  (B, K)
        return r.argmax(1)

    def insights(self, batch: Batch) -> dict[str, Tensor]:
        """``cluster`` (B,)."""
        return {"cluster": self._cluster(self.inputs(batch))}

    def insight_labels(self) -> dict[str, Sequence[str]]:
        """The clusters by number, those included that no row meets."""
        return {"cluster": [str(j) for j in range(self.clusters)]}

    def diagnostics(self) -> dict[str, float]:
        """Share of the last training batches in each cluster, and the largest cosine between two centres.

        A cosine near 1 says that clusters have fallen together: their rows are told apart by next to nothing.
        """
        numbers = {f"cluster_{j}": share for j, share in enumerate(self.routing.occupancy.tolist())}
        cosines = (self.routing.centres @ self.routing.centres.T).tolist()
        pairs = [cosines[i][j] for i, j in combinations(range(self.clusters), 2)]
        return super().diagnostics() | numbers | ({"largest_centre_cosine": max(pairs)} if pairs else {})

    def serving_form(self) -> nn.Module:
        """W_s ⊗ W_j and b_s + b_j computed beforehand."""
        served = copy.deepcopy(self)
        served.fcn = FoldedFCN(served.fcn) if isinstance(served.fcn, StarFCN) else served.fcn
        return served.eval()


def _norm(vectors: Tensor) -> Tensor:
    """Eq. 4: each row at unit length; a row of zeros stays as it is."""
    return F.normalize(vectors, dim=1)


def _of_the_user(fields: Sequence[str], schema: InputSchema) -> list[str]:
    """The fields that are the user's.

    Raises:
        ConfigurationError: there are none.
    """
    found = [name for name in fields if schema.owners.get(name) == "user" or name in schema.history]
    if not found:
        raise ConfigurationError(
            f"routing: 'user' reads the user's features and history, and these inputs have none: {', '.join(fields)}. "
            "Choose features of the user, give them `owner: user` in the schema, or take routing: instance."
        )
    return found
