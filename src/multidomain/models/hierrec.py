"""HierRec: Scenario-Aware Hierarchical Modeling for Multi-scenario Recommendations.

Jingtong Gao, Bo Chen, Menghui Zhu, Xiangyu Zhao, Xiaopeng Li, Yuhao Wang, Yichao Wang, Huifeng Guo, Ruiming Tang.
CIKM 2024. https://arxiv.org/abs/2309.02061

Notation: B rows; a scenario is a domain, e_s its embedding; E_c the embeddings of the I common fields, each of width d;
G heads; L linear layers in a scenario-oriented layer, each ``h W + b`` with W and b generated from a condition.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Unpack

import torch
from torch import Tensor, nn

from ..batch import Batch
from ..errors import ConfigurationError
from ..inputs import InputSchema
from ..layers.dropout import Dropout
from ..layers.generated import Distinct, GeneratedLinear
from ..layers.inputs import Inputs
from ..layers.mlp import he_, he_linear
from ..layers.normalization import BatchNorm
from .base import InputOptions, MultiDomainModel, check_shares, check_sizes, check_switches, check_widths


class HierRec(MultiDomainModel):
    """An explicit scenario-oriented layer below G implicit ones (section 2, Figure 2).

    What the paper leaves open, as chosen here (†):

    - † sizes: O^global 64; scenario-oriented layers 64-16-64 ("a bottleneck"); the output network 64-64-1.
    - † a generator of weights is one linear layer: a ReLU after it would forbid negative weights, and batch norm or
      dropout (Eq. 5) would see the M domains, not the rows. Its bias starts as He's weights for the layer it makes.
    - † weights are generated once for each different e_s of the batch, whatever describes the distribution; what rows
      with the same e_s teach it is shared among them.
    - † E_c has every field but a categorical one that is the domain's own; fields keep the order of the inputs, history
      and bags as their means, numbers as embeddings.
    - † O^global's batch norm uses running statistics for a single row, in training too; He's weights everywhere.
    - † a domain unknown or never met in training has an e_s of its own, trained on 1 % of the rows.
    - † no normalization of E_c, and no auxiliary network: the model is given the domain.

    Args:
        schema: the inputs.
        hidden: widths of the output network (Eq. 9).
        shared: widths of the network that makes O^global.
        scenario: widths of the L layers of a scenario-oriented layer: bottleneck and output.
        heads: G; 1 is the paper's ablation "-MI" (Figure 3, Table 6).
        explicit: whether there is an explicit scenario-oriented layer; False is "-E".
        implicit: whether there are implicit ones; False is "-I".
        official_variant: what only the authors' code has, not the paper: attention between the fields of P before
            Eq. 8, and weights of head g in Eq. 6 from the g-th of G parts of e_s.
        normalization: of E_c: none (the paper), batch, partitioned or layer.
        auxiliary: whether the auxiliary network of STAR is added.
        dropout: share of activations dropped in training (Eq. 5).
        inputs: see :class:`~multidomain.models.base.MultiDomainModel`.
    """

    def __init__(
        self,
        schema: InputSchema,
        *,
        hidden: Sequence[int] = (64, 64),
        shared: Sequence[int] = (64,),
        scenario: Sequence[int] = (16, 64),
        heads: int = 4,
        explicit: bool = True,
        implicit: bool = True,
        official_variant: bool = False,
        normalization: str = "none",
        auxiliary: bool = False,
        dropout: float = 0.2,
        **inputs: Unpack[InputOptions],
    ) -> None:
        super().__init__(schema, normalization=normalization, **inputs)
        hidden, shared = check_widths("hidden", hidden), check_widths("shared", shared)
        scenario = check_widths("scenario", scenario)
        check_sizes(heads=heads)
        check_switches(explicit=explicit, implicit=implicit, official_variant=official_variant)
        check_shares(dropout=dropout)
        if not scenario:
            raise ConfigurationError("scenario must name at least one layer width, such as [16, 64], got []")
        if not (explicit or implicit):
            raise ConfigurationError("explicit and implicit cannot both be false: nothing of HierRec would be left")
        fields, d = self.inputs.fields, self.inputs.embedding_dim
        self._common = [number for number, name in enumerate(fields) if not _is_domain(schema, name)]
        if not self._common:
            raise ConfigurationError(
                f"HierRec needs a field that is not the domain's own, not only {', '.join(fields)}"
            )
        condition = self.inputs.describe_distribution()
        self.shared = FC(in_features=len(self._common) * d, widths=shared, dropout=dropout)
        width = self.shared.out_features
        self.explicit: ScenarioLayer | None = None
        self.implicit: ScenarioLayer | None = None
        if explicit:
            self.explicit = ScenarioLayer(condition=condition, in_features=width, widths=scenario)
            width = scenario[-1]
        if implicit:
            size = (heads, len(self._common))
            self.field_scores = FieldScores(condition=condition, size=size, blocks=official_variant)
            self.attention = FieldAttention(features=d, dropout=dropout) if official_variant else nn.Identity()
            self.implicit = ScenarioLayer(condition=len(self._common) * d, in_features=width, widths=scenario)
            width = heads * scenario[-1]
        self.output = FC(in_features=width, widths=hidden, dropout=dropout)
        self.head = he_linear(self.output.out_features, 1, relu=False)
        self.add_auxiliary(auxiliary)

    @property
    def common_fields(self) -> tuple[str, ...]:
        """Names of the I common fields, in the order of E_c."""
        return tuple(self.inputs.fields[number] for number in self._common)

    def forward(self, batch: Batch) -> Tensor:
        """Logits (B,)."""
        x = self.inputs(batch)
        E_c = self._common_embeddings(x)  # Eq. 3  (B, I, d)
        e_s = Distinct.of(x.condition)  # Eq. 3: each once  (U, k)
        o = self.shared(E_c.flatten(1), x.domain)  # Eq. 5: O^global  (B, 64)
        if self.explicit is not None:
            o = self.explicit.distinct(o, e_s)  # Eq. 1, 2, 4: O^explicit  (B, 64)
        if self.implicit is not None:
            weight = self.field_scores(e_s.rows).softmax(-1).index_select(0, e_s.index)  # Eq. 6  (B, G, I)
            P = self.attention(weight.unsqueeze(-1) * E_c.unsqueeze(1))  # Eq. 7  (B, G, I, d)
            o = self.implicit(o, P.flatten(2)).flatten(1)  # Eq. 1, 2, 8: O^implicit, head by head  (B, G·64)
        logit = self.head(self.output(o, x.domain))[:, 0]  # Eq. 9; its sigmoid is in the loss  (B,)
        return self.with_auxiliary(logit, x)

    def insights(self, batch: Batch) -> dict[str, Tensor]:
        """``field_weights`` (B, G, I): the weights of Eq. 6 (Figure 5), the fields being :attr:`common_fields`."""
        if self.implicit is None:
            return {}
        with torch.no_grad():
            scores: Tensor = self.field_scores(self.inputs(batch).condition)
        return {"field_weights": scores.softmax(-1)}

    def insight_labels(self) -> dict[str, Sequence[str]]:
        """The common fields."""
        return {"field_weights": self.common_fields}

    def _common_embeddings(self, x: Inputs) -> Tensor:
        """E_c (B, I, d): the fields, normalized if that is wanted, but for the domain's own."""
        fields: Tensor = self.normalization(x.z, x.domain).view_as(x.fields)
        return fields if len(self._common) == fields.shape[1] else fields[:, self._common]


def _is_domain(schema: InputSchema, field: str) -> bool:
    """Whether a field tells nothing but the domain."""
    return field in schema.categorical and schema.owners.get(field) == "domain"


class FC(nn.Module):
    """Fully-connected layers, each ``σ(Dropout(BN(W h + b)))`` (Eq. 5).

    Args:
        in_features: width of the input.
        widths: of the layers; none gives the input back.
        dropout: share of activations dropped in training.

    Attributes:
        out_features: width of the output.
    """

    def __init__(self, *, in_features: int, widths: Sequence[int], dropout: float) -> None:
        super().__init__()
        self.out_features = [in_features, *widths][-1]
        self.layers = nn.ModuleList(he_linear(i, o, relu=True) for i, o in pairwise([in_features, *widths]))
        self.norms = nn.ModuleList(BatchNorm(width) for width in widths)
        self.dropout = Dropout(share=dropout)

    def forward(self, h: Tensor, domain: Tensor) -> Tensor:
        """(B, in_features), (B,) -> (B, out_features)."""
        for layer, norm in zip(self.layers, self.norms, strict=True):
            h = torch.relu(self.dropout(norm(layer(h), domain)))
        return h


class ScenarioLayer(nn.Module):
    """A scenario-oriented layer: L linear layers (Eq. 1) with weights generated from a scenario condition (Eq. 2).

    Args:
        condition: width of what the scenario condition is made from.
        in_features: width of the input.
        widths: of the L layers.
    """

    layers: Sequence[GeneratedLinear]

    def __init__(self, *, condition: int, in_features: int, widths: Sequence[int]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(  # type: ignore[assignment]
            GeneratedLinear(condition=condition, in_features=i, out_features=o)
            for i, o in pairwise([in_features, *widths])
        )

    def distinct(self, h: Tensor, condition: Distinct) -> Tensor:
        """(B, in_features) -> (B, out_features), weights generated once for each different condition (Eq. 4)."""
        for layer in self.layers:
            h = layer.distinct(h, condition)
        return h

    def forward(self, h: Tensor, condition: Tensor) -> Tensor:
        """(B, in_features), (B, G, condition) -> (B, G, out_features), weights of each row and head (Eq. 8)."""
        for layer in self.layers:
            h = layer(h, condition)
        return h


class FieldScores(nn.Module):
    """The weights of Eq. 6 before the softmax: ``Reshape(FC(e_s))``.

    Args:
        condition: width of e_s.
        size: G and I.
        blocks: head g sees the g-th of G parts of e_s alone, as in the authors' code.
    """

    def __init__(self, *, condition: int, size: tuple[int, int], blocks: bool) -> None:
        super().__init__()
        self.size = heads, fields = size
        if blocks and condition % heads:
            raise ConfigurationError(
                f"official_variant: {heads} heads must divide the width of e_s, which is {condition}"
            )
        self.blocks = heads if blocks else 1
        part = condition // self.blocks
        self.weight = nn.Parameter(torch.empty(self.blocks, part, heads * fields // self.blocks))
        self.bias = nn.Parameter(torch.zeros(heads * fields))
        he_(self.weight, part, relu=False)

    def forward(self, e_s: Tensor) -> Tensor:
        """(B, condition) -> (B, G, I)."""
        parts = e_s.view(e_s.shape[0], *self.weight.shape[:2])  # (B, 1 or G, …)
        scores = torch.einsum("bgk,gko->bgo", parts, self.weight).flatten(1) + self.bias
        return scores.view(e_s.shape[0], *self.size)


class FieldAttention(nn.Module):
    """Self-attention with one head between the fields of each P_g; only the authors' code has it.

    Args:
        features: d.
        dropout: share of attention weights dropped in training.
    """

    def __init__(self, *, features: int, dropout: float) -> None:
        super().__init__()
        self.project = he_linear(features, 3 * features, relu=False)
        self.out = he_linear(features, features, relu=False)
        self.dropout = Dropout(share=dropout)

    def forward(self, P: Tensor) -> Tensor:
        """(B, G, I, d) -> the same shape."""
        query, key, value = self.project(P).chunk(3, dim=-1)
        scores = query @ key.transpose(-2, -1) / P.shape[-1] ** 0.5  # (B, G, I, I)
        output: Tensor = self.out(self.dropout(scores.softmax(-1)) @ value)
        return output
