"""PEPNet: Parameter and Embedding Personalized Network for Infusing with Personalized Prior Information.

Jianxin Chang, Chenbin Zhang, Yiqun Hui, Dewei Leng, Yanan Niu, Yang Song, Kun Gai. KDD 2023.
https://arxiv.org/abs/2302.01115

Notation: B rows, E the embeddings of all features (width c), E(F_d) the representation of the domain (width k),
E(F_u), E(F_i), E(F_a) the embeddings of user, item and author, sg the stop-gradient (⊘ in the paper), ⊗ the
element-wise product, ⊕ concatenation, H^(l) the units of hidden layer l.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Unpack

import torch
from torch import Tensor, nn

from ...batch import Batch
from ...errors import ConfigurationError, unknown_key
from ...inputs import InputSchema
from ...layers.dropout import Dropout
from ...layers.gate import GateNU
from ...layers.mlp import MLP
from ..base import InputOptions, MultiDomainModel, check_shares, check_widths


class PEPNet(MultiDomainModel):
    """A gate on the embeddings by domain (EPNet), gates on the hidden layers by user and item (PPNet) (section 2).

    What the paper leaves open, or has for tasks that are not here (†):

    - † one task, so one network, shared by all domains, and one set of gates per hidden layer (the paper has a network
      for each task).
    - † the gates scale every hidden layer after its ReLU; the input of the first is scaled by EPNet already. The
      hidden layer of a gate unit is as wide as its output.
    - † E(F_u), E(F_i): of the categorical features that the user owns, the one with the largest vocabulary, which is
      the user's id where that is a feature; likewise of those that the item owns. The paper's author is named in
      ``personal`` where a data set has one.
    - † no auxiliary network: the domain is what EPNet reads.

    Args:
        schema: the inputs.
        hidden: widths of the hidden layers.
        personal: the categorical fields whose embeddings are the prior of PPNet; null chooses them.
        normalization: of E: none (the paper), partitioned, batch or layer.
        auxiliary: whether STAR's auxiliary network is added.
        dropout: share of hidden activations dropped in training; not in the paper.
        inputs: see :class:`~multidomain.models.base.MultiDomainModel`.
    """

    def __init__(
        self,
        schema: InputSchema,
        *,
        hidden: Sequence[int] = (512, 256, 128, 64, 32, 16),
        personal: Sequence[str] | None = None,
        normalization: str = "none",
        auxiliary: bool = False,
        dropout: float = 0.0,
        **inputs: Unpack[InputOptions],
    ) -> None:
        super().__init__(schema, normalization=normalization, **inputs)
        hidden = check_widths("hidden", hidden)
        check_shares(dropout=dropout)
        self.personal = _personal(schema, personal)
        self._positions = [schema.categorical.index(name) for name in self.personal]
        c, k = self.inputs.width, self.inputs.describe_distribution()
        self.epnet = GateNU(in_features=k + c, out_features=c)
        self.ppnet = PPNet(
            in_features=c, prior=len(self.personal) * self.inputs.embedding_dim, hidden=hidden, dropout=dropout
        )
        self.add_auxiliary(auxiliary)

    def forward(self, batch: Batch) -> Tensor:
        """Logits (B,)."""
        x = self.inputs(batch)
        E = self.normalization(x.z, batch.domain)  # §2.2.2  (B, c)
        delta_domain = self.epnet(torch.cat([x.condition, E.detach()], dim=1))  # U_ep(E(F_d) ⊕ sg(E))  (B, c)
        O_ep = delta_domain * E  # δ_domain ⊗ E: E learns here  (B, c)
        O_prior = x.fields[:, self._positions].flatten(1)  # §2.2.3: E(F_u) ⊕ E(F_i) ⊕ E(F_a)
        logit: Tensor = self.ppnet(O_ep, O_prior)
        return self.with_auxiliary(logit, x)


class PPNet(nn.Module):
    """A network whose hidden units are scaled row by row (section 2.2.3).

    Args:
        in_features: c.
        prior: width of O_prior.
        hidden: widths of the hidden layers.
        dropout: share of hidden activations dropped in training.
    """

    def __init__(self, *, in_features: int, prior: int, hidden: Sequence[int], dropout: float = 0.0) -> None:
        super().__init__()
        self.mlp = MLP(in_features=in_features, hidden=hidden)
        self.gates = nn.ModuleList(GateNU(in_features=prior + in_features, out_features=h) for h in hidden)
        self.dropout = Dropout(share=dropout)

    def forward(self, O_ep: Tensor, O_prior: Tensor) -> Tensor:
        """(B, c), (B, prior) -> logits (B,)."""
        known = torch.cat([O_prior, O_ep.detach()], dim=1)  # O_prior ⊕ sg(O_ep)
        H = O_ep
        *layers, last = self.mlp.layers
        for layer, gate in zip(layers, self.gates, strict=True):
            H = torch.relu(layer(H))  # H^(l+1) = f(O_pp^(l) W^(l) + b^(l))
            H = self.dropout(gate(known) * H)  # O_pp^(l) = δ_task^(l) ⊗ H^(l)
        logit: Tensor = last(H)[:, 0]
        return logit


def _personal(schema: InputSchema, named: Sequence[str] | None) -> tuple[str, ...]:
    if named is not None:
        if isinstance(named, str):
            raise ConfigurationError(f"personal must be a list of categorical fields, got {named!r}")
        for name in named:
            if name not in schema.categorical:
                raise ConfigurationError(f"personal: {unknown_key(name, schema.categorical)}")
        return tuple(named)
    owned = [[name for name in schema.categorical if schema.owners.get(name) == owner] for owner in ("user", "item")]
    return tuple(max(names, key=lambda name: schema.vocabularies[name]) for names in owned if names)
