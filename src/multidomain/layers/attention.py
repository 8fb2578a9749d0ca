"""Target attention: what a history (B, T, d_S) means to a candidate, with one query or several.

ADS (Chai et al. 2025, section 2.2.3, Eq. 8-12) puts the three of them behind its generators: the activation unit of
DIN, multi-head attention, and the co-action unit of CAN. Each is called ``(queries, events, mask) -> (B, features)``:

- queries (B, G, d_Q). G = 1 is the plain attention of one candidate. With more, query g meets the g-th part of the
  history and no other: G parts of ⌈T/G⌉ adjacent events, the oldest part being the shorter one. With G = T, query t
  pairs with event t alone: a diagonal, and no T × T product.
- events (B, T, d_S) and their mask, bool (B, T). An event that is masked counts for nothing, whatever it holds, and an
  empty history gives zeros: no layer after the weights has a bias. Events and mask may be (1, T, …): one history for
  all queries, as the candidates of a request have it.

``weights(queries, events, mask)`` gives what each event counts for, (B, T).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .exporting import exporting
from .mlp import he_
from .products import Linear, linear


def by_query(events: Tensor, queries: int) -> Tensor:
    """(B, T, k) -> (B, G, ⌈T/G⌉, k): the events that each query meets, zeros before the first where G divides T not."""
    batch, length, width = events.shape
    each = -(-length // queries)
    missing = queries * each - length
    return (F.pad(events, (0, 0, missing, 0)) if missing else events).reshape(batch, queries, each, width)


def by_event(parts: Tensor, length: int) -> Tensor:
    """(B, G, ⌈T/G⌉, k) -> (B, T, k): the inverse of :func:`by_query`."""
    flat = parts.flatten(1, 2)
    return flat[:, flat.shape[1] - length :]


def masked_softmax(scores: Tensor, mask: Tensor) -> Tensor:
    """Softmax of (B, T, k) over T, where the mask (B, T) is True; zeros elsewhere, and where it is nowhere True."""
    present = mask.unsqueeze(-1)
    return torch.softmax(scores.masked_fill(~present, torch.finfo(scores.dtype).min), dim=1) * present


class TargetAttention(nn.Module, ABC):
    """One of the three; see the module.

    Attributes:
        features: the width of the output.
    """

    features: int

    @abstractmethod
    def forward(self, queries: Tensor, events: Tensor, mask: Tensor) -> Tensor:
        """(B, G, d_Q), (B, T, d_S), (B, T) -> (B, features)."""

    @abstractmethod
    def weights(self, queries: Tensor, events: Tensor, mask: Tensor) -> Tensor:
        """What each event counts for, (B, T): 0 where it is masked."""


class DINAttention(TargetAttention):
    """The activation unit of DIN; the events themselves are summed (d_Q = d_S).

    Zhou et al. 2018, "Deep Interest Network for Click-Through Rate Prediction", section 4.3.
    https://arxiv.org/abs/1706.06978

    † The unit is a hidden layer with PReLU (its Figure 2) on query, event, their difference and their product (the
    paper: their "out product"; its code: these four). † Softmax over the history, after / √d_S, as ADS normalizes
    (Eq. 11-12) and DIN's code can; DIN itself sums with the weights as they are, which ``softmax=False`` does.

    Args:
        features: d_S = d_Q.
        hidden: width of the hidden layer.
        softmax: whether the weights are normalized.
    """

    def __init__(self, *, features: int, hidden: int = 36, softmax: bool = True) -> None:
        super().__init__()
        self.features, self.softmax = features, softmax
        self.hidden = Linear(4 * features, hidden)
        self.activation = nn.PReLU()
        self.output = Linear(hidden, 1)
        he_(self.hidden.weight, 4 * features, relu=True)
        he_(self.output.weight, hidden, relu=False)
        nn.init.zeros_(self.hidden.bias)
        nn.init.zeros_(self.output.bias)

    def forward(self, queries: Tensor, events: Tensor, mask: Tensor) -> Tensor:
        """(B, G, d_S), (B, T, d_S), (B, T) -> (B, d_S)."""
        z = self.weights(queries, events, mask)  # (B, T)
        return torch.matmul(z.unsqueeze(1).to(events.dtype), events)[:, 0]

    def weights(self, queries: Tensor, events: Tensor, mask: Tensor) -> Tensor:
        """(B, T)."""
        k = by_query(events, queries.shape[1])  # (B, G, ⌈T/G⌉, d_S)
        many = k.shape[2] >= self.features and not exporting()
        hidden = self._of_each(queries, k) if many else self._of_all(queries, k)  # (B, G, ⌈T/G⌉, hidden)
        scores = by_event(self.output(self.activation(hidden)), events.shape[1])  # (B, T, 1)
        if not self.softmax:
            return (scores * mask.unsqueeze(-1))[..., 0]
        return masked_softmax(scores / self.features**0.5, mask)[..., 0]

    def _of_all(self, q: Tensor, k: Tensor) -> Tensor:
        """W [q, k, q - k, q ⊙ k] without joining them: (B, G, d_S), (B, G, n, d_S) -> (B, G, n, hidden)."""
        of_q, of_k, of_difference, of_product = self.hidden.weight.chunk(4, dim=1)
        q = q.unsqueeze(2)  # (B, G, 1, d_S)
        hidden = linear(q, of_q + of_difference, self.hidden.bias)
        return hidden + linear(k, of_k - of_difference) + linear(q * k, of_product)

    def _of_each(self, q: Tensor, k: Tensor) -> Tensor:
        """The same where a query meets many events: its own weights (d_S, hidden) first, then one product with k."""
        of_q, of_k, of_difference, of_product = self.hidden.weight.chunk(4, dim=1)
        each = q.flatten(0, 1)  # (B·G, d_S)
        bias = linear(each, of_q + of_difference, self.hidden.bias)  # (B·G, hidden)
        own = torch.addcmul((of_k - of_difference).t(), each.unsqueeze(2), of_product.t())  # (B·G, d_S, hidden)
        return torch.baddbmm(bias.unsqueeze(1), k.expand(len(q), -1, -1, -1).flatten(0, 1), own).view(
            *q.shape[:2], k.shape[2], -1
        )


class MultiHeadAttention(TargetAttention):
    """Multi-head target attention (ADS, Eq. 8-12).

    Vaswani et al. 2017, "Attention Is All You Need", section 3.2. https://arxiv.org/abs/1706.03762

    † ADS says nothing of what follows the heads; as in Vaswani et al., they are laid side by side and multiplied with a
    W_O, which also gives the output its width.

    Args:
        query_features: d_Q.
        sequence_features: d_S.
        out_features: width of the output.
        heads: the number of heads.
        head_features: d_A, the width of each head.
    """

    def __init__(
        self,
        *,
        query_features: int,
        sequence_features: int,
        out_features: int,
        heads: int = 4,
        head_features: int = 32,
    ) -> None:
        super().__init__()
        self.features = out_features
        self.query = nn.Parameter(torch.empty(heads, query_features, head_features))
        self.key = nn.Parameter(torch.empty(heads, sequence_features, head_features))
        self.value = nn.Parameter(torch.empty(heads, sequence_features, head_features))
        self.output = Linear(heads * head_features, out_features, bias=False)
        for weight in (self.query, self.key, self.value):
            he_(weight, weight.shape[1], relu=False)
        he_(self.output.weight, heads * head_features, relu=False)

    def forward(self, queries: Tensor, events: Tensor, mask: Tensor) -> Tensor:
        """(B, G, d_Q), (B, T, d_S), (B, T) -> (B, out_features)."""
        z = self._attention(queries, events, mask)  # (B, T, heads)
        # Eq. 10, 12: Σ z[t] (E[t] W_V) = (Σ z[t] E[t]) W_V, a T-th of the work
        pooled = torch.matmul(z.transpose(1, 2).to(events.dtype), events)  # (B, heads, d_S)
        s = torch.einsum("bhs,hsa->bha", pooled, self.value)
        output: Tensor = self.output(s.flatten(1))
        return output

    def weights(self, queries: Tensor, events: Tensor, mask: Tensor) -> Tensor:
        """(B, T), the mean of the heads."""
        return self._attention(queries, events, mask).mean(dim=2)

    def _attention(self, queries: Tensor, events: Tensor, mask: Tensor) -> Tensor:
        # Eq. 8-9, 11: Q_tᵀ K_t = (E_Q W_Q)(E_S[t] W_K)ᵀ = (E_Q W_Q W_Kᵀ) E_S[t]ᵀ: one product for G queries, none for T
        folded = torch.einsum("hia,hsa->ihs", self.query, self.key)  # W_Q W_Kᵀ  (d_Q, heads, d_S)
        u = (queries @ folded.flatten(1)).view(*queries.shape[:2], *folded.shape[1:])  # (B, G, heads, d_S)
        parts = by_query(events, queries.shape[1])  # (B, G, ⌈T/G⌉, d_S)
        scores = (parts.unsqueeze(3) * u.unsqueeze(2)).sum(dim=4)  # (B, G, ⌈T/G⌉, heads)
        scores = by_event(scores, events.shape[1]) / self.query.shape[2] ** 0.5  # Eq. 11
        return masked_softmax(scores, mask)  # Eq. 12


class CoActionAttention(TargetAttention):
    """The co-action unit of CAN: the candidate is a small network, which each event goes through.

    Bian et al. 2022, "CAN: Feature Co-Action for Click-Through Rate Prediction", section 4.
    https://arxiv.org/abs/2011.05625

    Each event, to the powers 1 … ``orders``, passes the layers of the candidate's network, tanh between them; what all
    layers give is summed over the history. There are no weights to normalize, so neither the softmax nor the root of
    ADS's Eq. 11-12 applies. As in the authors' code, 8 and 4 units without biases and 3 orders, which share weights.

    † The network's weights are a linear function of the query, not an embedding of their own: only so can a query that
    PCRG generates reach them. Its bias starts as the weights of a plain network: at the start the networks of all
    candidates are nearly one. † The sum is projected to the width asked for, without a bias.

    Args:
        query_features: d_Q.
        sequence_features: d_S.
        out_features: width of the output.
        micro: widths of the layers of a candidate's network.
        orders: the highest power of an event.
    """

    def __init__(
        self,
        *,
        query_features: int,
        sequence_features: int,
        out_features: int,
        micro: Sequence[int] = (8, 4),
        orders: int = 3,
    ) -> None:
        super().__init__()
        self.features, self.orders = out_features, orders
        self._shapes = list(pairwise([sequence_features, *micro]))
        self.generator = Linear(query_features, sum(i * o for i, o in self._shapes))
        self.output = Linear(orders * sum(micro), out_features, bias=False)
        he_(self.generator.weight, query_features, relu=False)
        for bias, (i, _) in zip(self.generator.bias.split_with_sizes(self._sizes), self._shapes, strict=True):
            he_(bias, i, relu=False)
        he_(self.output.weight, orders * sum(micro), relu=False)

    @property
    def _sizes(self) -> list[int]:
        return [i * o for i, o in self._shapes]

    def forward(self, queries: Tensor, events: Tensor, mask: Tensor) -> Tensor:
        """(B, G, d_Q), (B, T, d_S), (B, T) -> (B, out_features)."""
        output: Tensor = self.output(self._co_action(queries, events, mask).sum(dim=1))
        return output

    def weights(self, queries: Tensor, events: Tensor, mask: Tensor) -> Tensor:
        """(B, T): the length of each event's co-action, as a share of their sum."""
        length: Tensor = torch.linalg.vector_norm(self._co_action(queries, events, mask), dim=2)
        return length / length.sum(dim=1, keepdim=True).clamp(min=torch.finfo(length.dtype).tiny)

    def _co_action(self, queries: Tensor, events: Tensor, mask: Tensor) -> Tensor:
        """(B, T, orders · Σ micro)."""
        parts = by_query(events, queries.shape[1])
        batch, (chunks, each) = queries.shape[0], parts.shape[1:3]
        h = torch.cat([parts**order for order in range(1, self.orders + 1)], dim=2)  # (B, G, orders·⌈T/G⌉, d_S)
        generated: Tensor = self.generator(queries)
        weights = generated.split_with_sizes(self._sizes, dim=2)
        outputs = []
        for number, (weight, shape) in enumerate(zip(weights, self._shapes, strict=True), start=1):
            h = h @ weight.reshape(batch, chunks, *shape)
            h = torch.tanh(h) if number < len(self._shapes) else h
            outputs.append(h)
        width = sum(o for _, o in self._shapes)
        joined = torch.cat(outputs, dim=3).view(batch, chunks, self.orders, each, width)
        joined = joined.transpose(2, 3).flatten(3)  # (B, G, ⌈T/G⌉, orders·Σ micro)
        return by_event(joined, events.shape[1]) * mask.unsqueeze(-1)
