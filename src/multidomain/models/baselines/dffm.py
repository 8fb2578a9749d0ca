"""DFFM: Domain Facilitated Feature Modeling for CTR Prediction.

Wei Guo, Chenxu Zhu, Fan Yan, Bo Chen, Weiwen Liu, Huifeng Guo, Hongkun Zheng, Yong Liu, Ruiming Tang. CIKM 2023.
https://openreview.net/forum?id=Dt0XYL2N5v

Notation: E^a, the fields e_1 … e_f, each of width d; E^d, what describes the domain; E^t, the candidate's embeddings,
and E^h, those of the history it is compared with, both of width H·d for H history fields; ⟨·,·⟩ the inner product.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Unpack

import torch
from torch import Tensor, nn

from ...batch import Batch
from ...inputs import InputSchema
from ...layers.generated import Distinct, GeneratedLinear
from ...layers.history import candidates
from ...layers.inputs import Inputs
from ...layers.mlp import MLP, he_linear
from ..base import InputOptions, MultiDomainModel, check_shares, check_sizes, check_widths


class DFFM(MultiDomainModel):
    """Interactions (DFFI) and behaviour (DFUB) with parameters that the domain makes, then a deep network (Figure 2).

    What the paper leaves open, or its public descriptions do, as chosen here (†):

    - † DFFI facilitates the inner products of PNN, the paper's example (Eq. 2); they and E^a itself, as in PNN, go to
      the deep network with what DFUB gives.
    - † the domain network D has two layers of width d and tanh. Its weights are a linear function of E^d (Eq. 6 cuts
      them out of E^d itself, which must then be as wide as they are many), made once for each different E^d, and start
      as the identity: training starts from PNN.
    - † DFUB is self-attention with heads over the history; queries, keys and values are multiplied with a linear
      function of E^t beside E^d, which starts at 1. Padding is masked; the mean over the events present is taken, and
      an empty history gives zeros. Four heads of 16.
    - † every history field is compared with the field its vocabulary belongs to, or a bag over it; with zeros if there
      is none. Without history DFUB is absent. The history's means stay among the fields.
    - † no normalization of z and no auxiliary network: the model is given the domain.

    Args:
        schema: the inputs.
        hidden: widths of the deep network.
        depth: L, layers of the domain network.
        heads: of the attention.
        attention_dim: width of each head.
        normalization: of the fields: none, batch, partitioned or layer.
        auxiliary: whether the auxiliary network of STAR is added.
        dropout: share of hidden activations dropped in training.
        inputs: see :class:`~multidomain.models.base.MultiDomainModel`.
    """

    domain_network: Sequence[GeneratedLinear]
    first: Tensor
    second: Tensor

    def __init__(
        self,
        schema: InputSchema,
        *,
        hidden: Sequence[int] = (512, 256, 128, 64, 32, 16),
        depth: int = 2,
        heads: int = 4,
        attention_dim: int = 16,
        normalization: str = "none",
        auxiliary: bool = False,
        dropout: float = 0.0,
        **inputs: Unpack[InputOptions],
    ) -> None:
        super().__init__(schema, normalization=normalization, **inputs)
        hidden = check_widths("hidden", hidden)
        check_sizes(depth=depth, heads=heads, attention_dim=attention_dim)
        check_shares(dropout=dropout)
        k, d = self.inputs.describe_distribution(), self.inputs.embedding_dim
        self.domain_network = nn.ModuleList(  # type: ignore[assignment]
            GeneratedLinear(condition=k, in_features=d, out_features=d, identity=True) for _ in range(depth)
        )
        pairs = torch.tensor(list(combinations(range(len(self.inputs.fields)), 2))).long().view(-1, 2)
        self.register_buffer("first", pairs[:, 0].contiguous())
        self.register_buffer("second", pairs[:, 1].contiguous())
        width = self.inputs.width + len(pairs)
        self.behaviour: Behaviour | None = None
        if schema.history and schema.history_length:
            features = len(schema.history) * d
            self.behaviour = Behaviour(features=features, condition=k, heads=heads, head_features=attention_dim)
            width += features
        self.deep = MLP(in_features=width, hidden=hidden, dropout=dropout)
        self.add_auxiliary(auxiliary)

    def forward(self, batch: Batch) -> Tensor:
        """Logits (B,)."""
        x = self.inputs(batch)
        e = self.normalization(x.z, x.domain).view_as(x.fields)  # E^a  (B, f, d)
        parts = [e.flatten(1), self._products(e, Distinct.of(x.condition))]  # (B, f·d), (B, f(f-1)/2)
        if self.behaviour is not None:
            parts.append(self.behaviour(*self._past(x), x.condition))  # (B, H·d)
        logit: Tensor = self.deep(torch.cat(parts, dim=1))[:, 0]  # its sigmoid is in the loss  (B,)
        return self.with_auxiliary(logit, x)

    def insights(self, batch: Batch) -> dict[str, Tensor]:
        """``attention`` (B, T): what each event counts for in DFUB; nothing without history."""
        if self.behaviour is None:
            return {}
        x = self.inputs(batch)
        with torch.no_grad():
            return {"attention": self.behaviour.weights(*self._past(x), x.condition).mean(1)}

    def _products(self, e: Tensor, e_d: Distinct) -> Tensor:
        """``⟨D(e_i), D(e_j)⟩`` for i < j: (B, f, d) -> (B, f(f-1)/2)."""
        h = e  # Eq. 3
        for layer in self.domain_network:
            h = torch.tanh(layer.distinct(h, e_d))  # Eq. 4, 6
        return (h @ h.transpose(1, 2))[:, self.first, self.second]  # Eq. 2, 5

    def _past(self, x: Inputs) -> tuple[Tensor, Tensor, Tensor]:
        """E^h (B, T, H·d), E^t (B, H·d) and which events there are, bool (B, T)."""
        fields, zeros = self.inputs.fields, torch.zeros_like(x.fields[:, 0])
        names = candidates(self.schema).values()
        e_t = torch.cat([zeros if name is None else x.fields[:, fields.index(name)] for name in names], dim=1)
        return x.events(), e_t, x.mask


class Behaviour(nn.Module):
    """Domain facilitated user behaviour: self-attention over E^h, facilitated by E^t and E^d.

    Args:
        features: H·d, width of E^h, E^t and of the output.
        condition: width of E^d.
        heads: of the attention.
        head_features: width of each head.
    """

    def __init__(self, *, features: int, condition: int, heads: int, head_features: int) -> None:
        super().__init__()
        self.heads, width = heads, heads * head_features
        self.query = nn.Linear(features, width, bias=False)
        self.key = nn.Linear(features, width, bias=False)
        self.value = nn.Linear(features, width, bias=False)
        self.output = nn.Linear(width, features, bias=False)
        self.facilitator = he_linear(features + condition, width, relu=False)
        nn.init.ones_(self.facilitator.bias)

    def forward(self, e_h: Tensor, e_t: Tensor, present: Tensor, e_d: Tensor) -> Tensor:
        """(B, T, H·d), (B, H·d), (B, T), (B, condition) -> (B, H·d)."""
        s = self._facilitate(e_t, e_d)  # (B, heads, a)
        weights = self._weights(e_h, present, s)  # (B, heads, T)
        values = self.value(e_h).view(*e_h.shape[:2], *s.shape[1:])  # (B, T, heads, a)
        pooled = torch.einsum("bht,btha->bha", weights, values) * s
        output: Tensor = self.output(pooled.flatten(1))
        return output

    def weights(self, e_h: Tensor, e_t: Tensor, present: Tensor, e_d: Tensor) -> Tensor:
        """What each event counts for in each head, (B, heads, T)."""
        return self._weights(e_h, present, self._facilitate(e_t, e_d))

    def _weights(self, e_h: Tensor, present: Tensor, s: Tensor) -> Tensor:
        """The mean over queries t of what attention a_tu gives to event u: (B, heads, T).

        ``mean_t Σ_u a_tu v_u = Σ_u (mean_t a_tu) v_u``: the values are summed once, not for every query.
        """
        shape, s = (*e_h.shape[:2], *s.shape[1:]), s.unsqueeze(1)
        q, k = self.query(e_h).view(shape) * s, self.key(e_h).view(shape) * s  # (B, T, heads, a)
        scores = torch.einsum("btha,buha->bhtu", q, k) / q.shape[-1] ** 0.5
        absent = ~present[:, None, None, :]
        attention = scores.masked_fill(absent, torch.finfo(scores.dtype).min).softmax(-1)  # (B, heads, T, T)
        queries = present / present.sum(1, keepdim=True).clamp(min=1)  # (B, T), adding to 1, or 0 without events
        return torch.einsum("bt,bhtu->bhu", queries.to(attention.dtype), attention)

    def _facilitate(self, e_t: Tensor, e_d: Tensor) -> Tensor:
        """(B, heads, a)."""
        factors: Tensor = self.facilitator(torch.cat([e_t, e_d], dim=1))
        return factors.view(e_t.shape[0], self.heads, factors.shape[1] // self.heads)
