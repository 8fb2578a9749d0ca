"""Linear layers with weights per domain: each row meets the weights of its own domain and no others.

The batch is sorted by domain once (:class:`Segments`); a layer then is one product per domain present, or in training
per block of domains with about as many rows (:class:`~multidomain.layers.blocks.Blocks`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise

import torch
from torch import Tensor, nn

from .blocks import Blocks
from .dropout import Dropout
from .exporting import exporting, own_linear, present
from .grouped import grouped_linear, star_linear
from .mlp import he_


@dataclass(frozen=True)
class Segments:
    """A batch sorted by domain.

    Attributes:
        domain: (B,) in sorted order.
        order: (B,), ``x[order]`` is sorted; None if the batch is, as one of a single domain is known to be.
        inverse: (B,), ``x_sorted[inverse]`` is in the batch's order again; None if it never left it.
        counts: rows of each domain 0 … M, the last being "unknown".
        present: in a graph (:mod:`.exporting`), whose rows are not sorted and have no counts: the domains that have
            rows (U,), and where among these each row's is (B,).
        together: whether what layers get are its rows as :attr:`blocks` puts small domains together, not the sorted.
    """

    domain: Tensor
    order: Tensor | None
    inverse: Tensor | None
    counts: list[int]
    present: tuple[Tensor, Tensor] | None = None
    together: bool = False

    @cached_property
    def blocks(self) -> Blocks:
        """Where the rows of each domain lie."""
        return Blocks.together(self.counts, self.domain.device) if self.together else Blocks.sorted(self.counts)

    def for_layers(self) -> Segments:
        """For several layers in turn: ``blocks.enter`` before them and ``blocks.leave`` behind, small domains together.

        In evaluation, where no row's score may depend on what lies beside it, the sorted rows as they are.
        """
        return replace(self, together=torch.is_grad_enabled() and self.present is None)

    @classmethod
    def of(cls, domain: Tensor, domains: int) -> Segments:
        """Sort (B,) domain ids of 0 … M = ``domains``.

        Raises:
            IndexError: an id below 0 or above M.
        """
        if exporting():
            domain = domain.long()
            return cls(domain, None, None, [], present(domain, domains + 1))
        lowest, highest = (int(end) for end in domain.aminmax()) if domain.numel() else (0, 0)
        if not 0 <= lowest <= highest <= domains:
            raise IndexError(
                f"domain ids {lowest} to {highest} in the batch; "
                f"the model knows 0 to {domains - 1}, and {domains} for an unknown domain"
            )
        if lowest == highest:
            counts = [len(domain) if p == lowest else 0 for p in range(domains + 1)]
            return cls(domain.long(), None, None, counts)
        ordered, order = domain.long().sort(stable=True)
        inverse = torch.empty_like(order)
        inverse[order] = torch.arange(len(order), device=order.device)
        return cls(ordered, order, inverse, torch.bincount(ordered, minlength=domains + 1).tolist())

    def sort(self, x: Tensor) -> Tensor:
        """(B, …) in the batch's order -> (B, …) sorted by domain."""
        return x if self.order is None else x.index_select(0, self.order)

    def unsort(self, x: Tensor) -> Tensor:
        """The inverse of :meth:`sort`."""
        return x if self.inverse is None else x.index_select(0, self.inverse)


class StarLinear(nn.Module):
    """One layer of the star topology FCN (STAR, section 3.4, Eq. 5-6, without the activation).

    ``W*_p = W_p ⊗ W``, ``b*_p = b_p + b``, ``out = W*_pᵀ x + b*_p``.

    † W He, W_p = 1, biases 0 at the start: the network starts as its shared centre. † The unknown domain, id M, is
    served by the centre alone: W_p = 1, b_p = 0.

    Args:
        in_features: i.
        out_features: o.
        domains: M.
        relu: whether a ReLU follows (decides the scale of W at the start).

    Attributes:
        sparse: whether W_p and b_p get sparse gradients, of the domains in the batch; training switches it on.
    """

    sparse = False

    def __init__(self, *, in_features: int, out_features: int, domains: int, relu: bool = True) -> None:
        super().__init__()
        self.domains = domains
        self.weight = nn.Parameter(torch.empty(in_features, out_features))
        self.bias = nn.Parameter(torch.zeros(out_features))
        self.domain_weight = nn.Parameter(torch.ones(domains, in_features, out_features))
        self.domain_bias = nn.Parameter(torch.zeros(domains, out_features))
        he_(self.weight, in_features, relu=relu)

    def forward(self, x: Tensor, domain: Tensor) -> Tensor:
        """(B, i), (B,) -> (B, o)."""
        segments = Segments.of(domain, self.domains)
        return segments.unsort(self.segmented(segments.sort(x), segments))

    def segmented(self, x: Tensor, segments: Segments) -> Tensor:
        """(B, i) -> (B, o), the rows sorted by domain."""
        if segments.present is not None:
            return own_linear(x, *segments.present, *self.star())
        shared, private = (self.weight, self.bias), (self.domain_weight, self.domain_bias)
        return star_linear(x, segments.blocks, *shared, *private, sparse=self.sparse)  # Eq. 5-6

    def star(self) -> tuple[Tensor, Tensor]:
        """Eq. 5 for every domain and, last, the unknown one: W* (M+1, i, o), b* (M+1, o)."""
        weight = torch.cat([self.domain_weight * self.weight, self.weight.unsqueeze(0)])
        bias = torch.cat([self.domain_bias + self.bias, self.bias.unsqueeze(0)])
        return weight, bias


class DomainLinear(nn.Module):
    """A linear layer of its own for each domain, and one, slot M, for the unknown domain.

    Args:
        weight: (M+1, i, o).
        bias: (M+1, o).

    Attributes:
        sparse: whether they get sparse gradients, of the domains in the batch; training switches it on.
    """

    sparse = False

    def __init__(self, *, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.domain_weight = nn.Parameter(weight)
        self.domain_bias = nn.Parameter(bias)

    @classmethod
    def he(cls, *, in_features: int, out_features: int, domains: int, relu: bool = True) -> DomainLinear:
        """The start of training: He's weights, zero biases, for each of the M domains and slot M."""
        weight = torch.empty(domains + 1, in_features, out_features)
        he_(weight, in_features, relu=relu)
        return cls(weight=weight, bias=torch.zeros(domains + 1, out_features))

    def segmented(self, x: Tensor, segments: Segments) -> Tensor:
        """(B, i) -> (B, o), the rows sorted by domain."""
        if segments.present is not None:
            return own_linear(x, *segments.present, self.domain_weight, self.domain_bias)
        return grouped_linear(x, segments.blocks, self.domain_weight, self.domain_bias, sparse=self.sparse)

    def every(self, x: Tensor) -> Tensor:
        """(B, i), or (M+1, B, i) with an input for each domain -> (M+1, B, o): the layers of all domains.

        For equations that mix the domains; one batched product.
        """
        x = x.expand(len(self.domain_weight), *x.shape[-2:])
        return torch.baddbmm(self.domain_bias.unsqueeze(1), x, self.domain_weight)


class DomainOutputs(nn.Module):
    """A shared linear layer whose number of outputs grows with the number of domains.

    Args:
        in_features: i.
        out_features: o, such as a number per domain.
    """

    def __init__(self, *, in_features: int, out_features: int) -> None:
        super().__init__()
        self.domain_weight = nn.Parameter(torch.empty(in_features, out_features))
        self.domain_bias = nn.Parameter(torch.zeros(out_features))
        he_(self.domain_weight, in_features, relu=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, i) -> (B, o)."""
        return torch.addmm(self.domain_bias, x, self.domain_weight)


class StarFCN(nn.Module):
    """The star topology FCN: Eq. 5-6 in every layer, ReLU on the hidden ones, a linear output.

    Args:
        in_features: width of the input.
        hidden: widths of the hidden layers.
        domains: M.
        out_features: width of the output.
        dropout: share of hidden activations dropped in training.
    """

    layers: Sequence[StarLinear]

    def __init__(
        self, *, in_features: int, hidden: Sequence[int], domains: int, out_features: int = 1, dropout: float = 0.0
    ) -> None:
        super().__init__()
        widths = [in_features, *hidden, out_features]
        last = len(widths) - 2
        self.layers = nn.ModuleList(  # type: ignore[assignment]
            StarLinear(in_features=i, out_features=o, domains=domains, relu=number < last)
            for number, (i, o) in enumerate(pairwise(widths))
        )
        self.dropout = Dropout(share=dropout)

    def forward(self, x: Tensor, segments: Segments) -> Tensor:
        """(B, in_features) -> (B, out_features), the rows sorted by domain."""
        return _through(x, segments, self.layers, self.dropout)


def _through(x: Tensor, segments: Segments, layers: Sequence[StarLinear | DomainLinear], dropout: nn.Module) -> Tensor:
    """Layers one after the other, ReLU between them: (B, i) -> (B, o), the rows sorted by domain."""
    segments = segments.for_layers()
    x = segments.blocks.enter(x)
    for layer in layers[:-1]:
        x = dropout(torch.relu(layer.segmented(x, segments)))
    return segments.blocks.leave(layers[-1].segmented(x, segments))


class FoldedFCN(nn.Module):
    """A :class:`StarFCN` as it is served: ``W*_p`` and ``b*_p`` computed once (STAR, section 4.4).

    An affine map of the input, such as a normalization in evaluation, is folded into the first layer:
    ``W*_pᵀ (scale_p x + shift_p) + b*_p``. Folding is done in double precision.

    Args:
        fcn: a trained network; its weights are copied.
        affine: scale and shift, each (M+1, in_features), in double precision; or None.
    """

    layers: Sequence[DomainLinear]

    def __init__(self, fcn: StarFCN, affine: tuple[Tensor, Tensor] | None = None) -> None:
        super().__init__()
        layers = [layer.star() for layer in fcn.layers]  # Eq. 5: W* (M+1, i, o), b* (M+1, o)
        if affine is not None:
            layers[0] = _fold(*affine, *layers[0])
        folded = [DomainLinear(weight=weight.detach(), bias=bias.detach()) for weight, bias in layers]
        self.layers = nn.ModuleList(folded)  # type: ignore[assignment]

    def forward(self, x: Tensor, segments: Segments) -> Tensor:
        """(B, in_features) -> (B, out_features), the rows sorted by domain."""
        weights = [(layer.domain_weight, layer.domain_bias) for layer in self.layers]
        if segments.present is not None:
            for weight, bias in weights[:-1]:
                x = torch.relu(own_linear(x, *segments.present, weight, bias))
            return own_linear(x, *segments.present, *weights[-1])
        outputs, end = [], 0
        for p, rows in enumerate(segments.counts):
            if rows:
                end += rows
                outputs.append(_network(x[end - rows : end], [(w.select(0, p), b.select(0, p)) for w, b in weights]))
        if len(outputs) == 1:
            return outputs[0]
        return torch.cat(outputs) if outputs else x.new_empty(0, weights[-1][1].shape[1])


def _network(x: Tensor, layers: list[tuple[Tensor, Tensor]]) -> Tensor:
    """Layers (i, o), (o,) one after the other, ReLU between them: they stay in the cache that way."""
    for weight, bias in layers[:-1]:
        x = torch.addmm(bias, x, weight).relu_()
    return torch.addmm(layers[-1][1], x, layers[-1][0])


def _fold(scale: Tensor, shift: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """The first layer applied to ``scale x + shift``: scale and shift (M+1, i), weight (M+1, i, o), bias (M+1, o)."""
    exact = weight.double()
    folded = exact * scale.unsqueeze(-1)
    return folded.to(weight.dtype), (bias.double() + torch.einsum("mi,mio->mo", shift, exact)).to(bias.dtype)


class DomainMLP(nn.Module):
    """A fully-connected network of its own for each domain, and one, slot M, for the unknown domain: towers.

    A row meets the weights of its own domain alone. Give it domain ids that passed
    :class:`~multidomain.layers.embedding.KnownDomains`, so that slot M is trained.

    Args:
        in_features: width of the input.
        hidden: widths of the hidden layers; none makes it a single linear layer per domain.
        domains: M.
        out_features: width of the output, which is linear.
        dropout: share of hidden activations dropped in training.
    """

    layers: Sequence[DomainLinear]

    def __init__(
        self, *, in_features: int, hidden: Sequence[int], domains: int, out_features: int = 1, dropout: float = 0.0
    ) -> None:
        super().__init__()
        widths = [in_features, *hidden, out_features]
        self.layers = nn.ModuleList(  # type: ignore[assignment]
            DomainLinear.he(in_features=i, out_features=o, domains=domains, relu=number < len(hidden))
            for number, (i, o) in enumerate(pairwise(widths))
        )
        self.dropout = Dropout(share=dropout)

    def forward(self, x: Tensor, segments: Segments) -> Tensor:
        """(B, in_features) -> (B, out_features), the rows sorted by domain."""
        return _through(x, segments, self.layers, self.dropout)
