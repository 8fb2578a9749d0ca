"""Progressive Layered Extraction (PLE): A Novel Multi-Task Learning (MTL) Model for Personalized Recommendations.

Hongyan Tang, Junning Liu, Ming Zhao, Xudong Gong. RecSys 2020. https://doi.org/10.1145/3383313.3412236
As a baseline of multi-domain models, a domain in the place of a task: Li et al. 2022 (AdaptDHM), section 4.1.2.

Notation: B rows, M domains, k a domain, x the normalized embeddings (width c), N levels of extraction, j a level;
m_k experts E_(k,·) of domain k and m_s shared ones E_(s,·) at each level, h the width of their outputs; g^{k,j} what
the gate of domain k gives at level j, g^{s,j} what the shared gate gives, g^{k,0} = g^{s,0} = x; t^k a tower.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Unpack

import torch
from torch import Tensor, nn

from ...batch import Batch
from ...errors import ConfigurationError
from ...inputs import InputSchema
from ...layers.domain_linear import DomainLinear, DomainMLP, DomainOutputs, Segments
from ...layers.embedding import KnownDomains
from ...layers.experts import DomainExperts, Experts, mix
from ..base import InputOptions, MultiDomainModel, check_shares, check_sizes, check_widths


class Extraction(nn.Module):
    """One level: experts, the gates of the domains (section 4.1, Eq. 1-3) and, below the last level, the shared gate.

    The shared gate mixes the experts of *all* domains, so all of them work on every row where there is one.

    Args:
        in_features: width of g^{k,j-1}.
        hidden: widths of the layers of each expert.
        domains: M.
        specific: m_k, the experts of each domain.
        shared: m_s.
        last: whether this is the last level, without shared gate.
        dropout: share of hidden activations dropped in training.
    """

    def __init__(
        self,
        *,
        in_features: int,
        hidden: Sequence[int],
        domains: int,
        specific: int,
        shared: int,
        last: bool,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        i, h = in_features, hidden
        self.specific = DomainExperts(in_features=i, hidden=h, domains=domains, experts=specific, dropout=dropout)
        self.shared = Experts(in_features=i, hidden=h, experts=shared, dropout=dropout)
        self.gates = DomainLinear.he(in_features=i, out_features=specific + shared, domains=domains, relu=False)
        everyone = (domains + 1) * specific + shared
        self.shared_gate = None if last else DomainOutputs(in_features=i, out_features=everyone)

    def own_gate(self, own: Tensor, segments: Segments) -> Tensor:
        """w^{k,j} of each row's own domain k, Eq. 2: g^{k,j-1} (B, i) -> (B, m_k + m_s)."""
        return torch.softmax(self.gates.segmented(own, segments), dim=1)

    def own(self, own: Tensor, shared: Tensor, segments: Segments) -> Tensor:
        """g^{k,j} of each row's own domain k; no other domain's experts work.

        Args:
            own: g^{k,j-1} (B, i), rows sorted by domain.
            shared: g^{s,j-1} (B, i).
            segments: of those rows.

        Returns:
            (B, h).
        """
        S_k = torch.cat([self.specific.segmented(own, segments), self.shared(shared)])  # Eq. 3  (m_k + m_s, B, h)
        return mix(self.own_gate(own, segments), S_k)  # Eq. 1, 5

    def outputs(self, every: Tensor, shared: Tensor) -> tuple[Tensor, Tensor]:
        """The outputs of all experts.

        Args:
            every: g^{k,j-1} of all domains k (M+1, B, i), or x (B, i) for all of them.
            shared: g^{s,j-1} (B, i).

        Returns:
            E_(k,·) (M+1, m_k, B, h) and E_(s,·) (m_s, B, h).
        """
        return self.specific.every(every), self.shared(shared)

    def mix_all(self, shared: Tensor, E_k: Tensor, E_s: Tensor) -> Tensor:
        """g^{s,j}: g^{s,j-1} (B, i) and all experts' outputs -> (B, h)."""
        assert self.shared_gate is not None
        w = torch.softmax(self.shared_gate(shared), dim=1)  # (B, (M+1) m_k + m_s)
        w_k, w_s = w.split_with_sizes([w.shape[1] - len(E_s), len(E_s)], dim=1)
        return mix(w_k, E_k.flatten(0, 1)) + mix(w_s, E_s)

    def mix_own(self, own: Tensor, segments: Segments, E_k: Tensor, E_s: Tensor) -> Tensor:
        """g^{k,j} of each row's own domain k: g^{k,j-1} (B, i) and all experts' outputs -> (B, h)."""
        rows = torch.arange(own.shape[0], device=own.device)
        chosen = E_k[segments.domain, :, rows].transpose(0, 1)  # (m_k, B, h)
        return mix(self.own_gate(own, segments), torch.cat([chosen, E_s]))  # Eq. 1, 3, 5

    def mix_every(self, every: Tensor, E_k: Tensor, E_s: Tensor) -> Tensor:
        """g^{k,j} of all domains k: g^{k,j-1} (M+1, B, i), or x (B, i), and all experts' outputs -> (M+1, B, h)."""
        w = torch.softmax(self.gates.every(every), dim=2)  # (M+1, B, m_k + m_s)
        w_k, w_s = w.split_with_sizes([E_k.shape[1], len(E_s)], dim=2)
        return torch.einsum("kbe,kebh->kbh", w_k, E_k) + torch.einsum("kbe,ebh->kbh", w_s, E_s)


class PLE(MultiDomainModel):
    """Experts of each domain's own beside shared ones, level upon level, then a tower of each domain's own.

    At a level below the last the shared gate mixes the experts of all domains, so all of them are computed for every
    row, in one product. At the last level, which has no shared gate, a row meets the shared experts and its own
    domain's experts, gate and tower alone. With ``levels: 1`` (customized gate control) the cost of a row therefore
    does not grow with M.

    What the papers leave open, as chosen here (†):

    - † two levels, one expert per domain and one shared, of 192-64 (the paper has experts of one layer and tunes their
      number), towers 32-16: seven layers in all as in the DNN, and with three domains about one and a half times its
      weights, although there are experts for each domain at each level. AdaptDHM's comparison has the full depth in
      the experts: ``levels: 1``, ``hidden: [512, 256, 128, 64, 32]``, ``tower: []``.
    - The gates are ``softmax(W g)`` without hidden layer or normalization (Eq. 2); † with a bias, 0 at the start. The
      shared gate reads g^{s,j-1}.
    - † batch normalization of the embeddings, as in the other baselines of this family.
    - † an unknown domain is one more domain: experts, gates and a tower of its own, trained with 1 % of the rows, its
      experts among those the shared gate mixes. A domain never met in training counts as unknown.
    - † no auxiliary network unless asked for: the model takes the domain itself, and AdaptDHM's comparison has none.

    Args:
        schema: the inputs.
        levels: N.
        experts: m_k, experts of each domain at each level.
        shared_experts: m_s, shared experts at each level.
        hidden: widths of the layers of each expert; the same at all levels.
        tower: widths of the hidden layers of each domain's tower; none makes it a single linear layer.
        normalization: batch, partitioned, layer or none.
        auxiliary: whether the auxiliary network is added.
        dropout: share of hidden activations dropped in training; not in the papers.
        inputs: see :class:`~multidomain.models.base.MultiDomainModel`.
    """

    levels: Sequence[Extraction]

    def __init__(
        self,
        schema: InputSchema,
        *,
        levels: int = 2,
        experts: int = 1,
        shared_experts: int = 1,
        hidden: Sequence[int] = (192, 64),
        tower: Sequence[int] = (32, 16),
        normalization: str = "batch",
        auxiliary: bool = False,
        dropout: float = 0.0,
        **inputs: Unpack[InputOptions],
    ) -> None:
        super().__init__(schema, normalization=normalization, **inputs)
        check_sizes(levels=levels, experts=experts, shared_experts=shared_experts)
        hidden, tower = check_widths("hidden", hidden), check_widths("tower", tower)
        if not hidden:
            raise ConfigurationError("hidden: an expert needs at least one layer, got []")
        check_shares(dropout=dropout)
        M, c = schema.domains, self.inputs.width
        self.known = KnownDomains(domains=M, unknown_rate=self.inputs.unknown_rate)
        widths = [c] + [hidden[-1]] * (levels - 1)  # of what each level reads

        self.levels = nn.ModuleList(  # type: ignore[assignment]
            Extraction(
                in_features=width,
                hidden=hidden,
                domains=M,
                specific=experts,
                shared=shared_experts,
                last=number == levels,
                dropout=dropout,
            )
            for number, width in enumerate(widths, start=1)
        )
        self.towers = DomainMLP(in_features=hidden[-1], hidden=tower, domains=M, dropout=dropout)
        self.add_auxiliary(auxiliary)

    def forward(self, batch: Batch) -> Tensor:
        """Logits (B,)."""
        x = self.inputs(batch)
        segments = Segments.of(self.known(batch.domain), self.schema.domains)  # the rows by domain
        z = segments.sort(self.normalization(x.z, batch.domain))  # the paper's x  (B, c)
        g_k, g_s = self._extract(z, segments)  # Eq. 5, levels 1 to N-1  (B, i)
        g_k = self.levels[-1].own(g_k, g_s, segments)  # Eq. 5, level N  (B, h)
        y_k: Tensor = self.towers(g_k, segments)  # Eq. 6  (B, 1)
        return self.with_auxiliary(segments.unsort(y_k)[:, 0], x)

    def _extract(self, z: Tensor, segments: Segments) -> tuple[Tensor, Tensor]:
        """The levels below the last: z (B, c), sorted -> g^{k,N-1} of each row's own domain and g^{s,N-1} (B, i)."""
        every = own = shared = z  # g^{k,0} of all domains k, that of the row's own, g^{s,0}
        below = len(self.levels) - 1
        for j, level in enumerate(self.levels[:-1], start=1):
            E_k, E_s = level.outputs(every, shared)
            if j == below:  # the last level wants what a row's own domain has
                own = level.mix_own(_own(every, segments), segments, E_k, E_s)
            else:  # the next level's experts of all domains want theirs
                every = level.mix_every(every, E_k, E_s)
            shared = level.mix_all(shared, E_k, E_s)
        return own, shared

    def insights(self, batch: Batch) -> dict[str, Tensor]:
        """``gate`` (B, m_k + m_s): at the last level, the weights of the domain's own experts, then the shared ones."""
        segments = Segments.of(self.known(batch.domain), self.schema.domains)
        z = segments.sort(self.normalization(self.inputs(batch).z, batch.domain))
        g_k, _ = self._extract(z, segments)
        return {"gate": segments.unsort(self.levels[-1].own_gate(g_k, segments))}


def _own(every: Tensor, segments: Segments) -> Tensor:
    """Of what all domains have for each row, what its own domain has: (M+1, B, i), or (B, i) for all, -> (B, i)."""
    if every.dim() == 2:
        return every
    return every[segments.domain, torch.arange(segments.domain.shape[0], device=every.device)]
