"""AdaSparse: Learning Adaptively Sparse Structures for Multi-Domain Click-Through Rate Prediction.

Xuanhua Yang, Xiaoyu Peng, Penghui Wei, Shaoguo Liu, Liang Wang, Bo Zheng. CIKM 2022. https://arxiv.org/abs/2206.13108

Notation: e_d describes the domain of a row; h^l are the N^l neurons of hidden layer l of L, π^l their weighting
factors, made by a pruner from v_in; r^l is the share of neurons that are pruned; ⊙ the element-wise product.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Unpack

import torch
from torch import Tensor, nn

from ...batch import Batch
from ...errors import ConfigurationError
from ...inputs import InputSchema
from ...layers.dropout import Dropout
from ...layers.mlp import MLP, he_linear
from ...layers.synchronised import alone, place, total
from ..base import (
    InputOptions,
    MultiDomainModel,
    check_choice,
    check_shares,
    check_sizes,
    check_switches,
    check_widths,
)

FORMS = ("binarization", "scaling", "fusion")


class AdaSparse(MultiDomainModel):
    """A fully-connected network that prunes, in every hidden layer, the neurons a domain has no use for (Figure 2).

    What the paper leaves open or contradicts, as chosen here (†):

    - † ``sign(|v_out| - ε)`` is 1 above the threshold and **0** below it: taken literally it would be -1, and nothing
      would be pruned.
    - † ε = 0.25. The step has no gradient: binarized factors and r^l pass it straight through to ``sigmoid(α v_in)``;
      a fused factor has the gradient of its product with the step.
    - † r^l counts the neurons at zero, over the rows of a batch, for fusion as for binarization; scaling prunes none
      and has no regularization.
    - † α grows from 0.1 to 5 (the paper's numbers) and λ from 0.01 (the paper's) to 1 in equal steps over the first
      ``ramp`` batches; how, and λ's end, are not stated.
    - † pruners are one linear layer on [e_d; h^l] ("e_d alone" is another reading of the paper, HierRec's); the neurons
      of hidden layers are pruned, after the activation, not the embeddings. ReLU.
    - † no normalization of z and no auxiliary network: the model is given the domain.

    Args:
        schema: the inputs.
        hidden: widths of the hidden layers.
        form: fusion (the best of the paper), binarization or scaling.
        threshold: ε; compared with v_out, which is at most 1 for binarization and at most β for fusion.
        scale: β.
        sharpness: α at the first batch and after `ramp` batches.
        sparsity: r_min and r_max, the shares of neurons pruned that are not penalised.
        regularization: λ at the first batch and after `ramp` batches.
        ramp: batches over which α and λ grow.
        neurons: whether the pruner of a layer sees its neurons beside e_d.
        normalization: none, batch, partitioned or layer.
        auxiliary: whether the auxiliary network of STAR is added.
        dropout: share of hidden activations dropped in training; not in the paper.
        inputs: see :class:`~multidomain.models.base.MultiDomainModel`.
    """

    layers: Sequence[nn.Linear]
    pruners: Sequence[nn.Linear]
    batches_seen: Tensor
    pruned: Tensor

    def __init__(
        self,
        schema: InputSchema,
        *,
        hidden: Sequence[int] = (512, 256, 128, 64, 32, 16),
        form: str = "fusion",
        threshold: float = 0.25,
        scale: float = 2.0,
        sharpness: Sequence[float] = (0.1, 5.0),
        sparsity: Sequence[float] = (0.15, 0.25),
        regularization: Sequence[float] = (0.01, 1.0),
        ramp: int = 1000,
        neurons: bool = True,
        normalization: str = "none",
        auxiliary: bool = False,
        dropout: float = 0.0,
        **inputs: Unpack[InputOptions],
    ) -> None:
        super().__init__(schema, normalization=normalization, **inputs)
        hidden = check_widths("hidden", hidden)
        check_choice("form", form, FORMS)
        check_sizes(ramp=ramp)
        check_switches(neurons=neurons)
        check_shares(threshold=threshold, dropout=dropout)
        if isinstance(scale, bool) or not isinstance(scale, int | float) or scale < 1:
            raise ConfigurationError(f"scale must be a number of at least 1, got {scale!r}")
        self.form, self.threshold, self.scale, self.ramp, self.neurons = form, threshold, scale, ramp, neurons
        self.sharpness = _check_pair("sharpness", sharpness)
        self.sparsity = _check_pair("sparsity", sparsity, highest=1.0)
        self.regularization = _check_pair("regularization", regularization)
        k = self.inputs.describe_distribution()
        self.layers = nn.ModuleList(  # type: ignore[assignment]
            he_linear(i, o, relu=True) for i, o in pairwise([k + self.inputs.width, *hidden])
        )
        self.pruners = nn.ModuleList(  # type: ignore[assignment]
            he_linear(k + neurons * o, o, relu=False) for o in hidden
        )
        self.dropout = Dropout(share=dropout)
        self.head = MLP(in_features=hidden[-1] if hidden else k + self.inputs.width, hidden=[])
        self.register_buffer("batches_seen", torch.zeros((), dtype=torch.int64))
        self.register_buffer("pruned", torch.zeros(len(hidden)))
        self._loss: Tensor | None = None
        self.add_auxiliary(auxiliary)

    def forward(self, batch: Batch) -> Tensor:
        """Logits (B,)."""
        x = self.inputs(batch)
        logit, kept = self._network(x.condition, self.normalization(x.z, x.domain))
        self._loss = self._regularization(kept) if self.training else None
        self.batches_seen += self.training
        return self.with_auxiliary(logit, x)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_loss": None}  # a copy does not share the graph of the batch last seen

    def auxiliary_loss(self) -> Tensor:
        """R_s of the training batch last seen."""
        loss = super().auxiliary_loss()
        return loss if self._loss is None else loss + self._loss

    def diagnostics(self) -> dict[str, float]:
        """``pruned_layer_1`` …: r^l of the training batch last seen."""
        shares = enumerate(self.pruned.tolist(), start=1)
        return {**super().diagnostics(), **{f"pruned_layer_{layer}": share for layer, share in shares}}

    def insights(self, batch: Batch) -> dict[str, Tensor]:
        """``sparsity`` (B, L): the share of each hidden layer's neurons that is pruned for a row."""
        x = self.inputs(batch)
        with torch.no_grad():
            _, kept = self._network(x.condition, self.normalization(x.z, x.domain))
        return {"sparsity": torch.stack([1 - one.mean(1) for one in kept], dim=1)} if kept else {}

    def insight_labels(self) -> dict[str, Sequence[str]]:
        """The hidden layers."""
        return {"sparsity": [f"layer {number}" for number, _ in enumerate(self.layers, start=1)]}

    def _network(self, e_d: Tensor, z: Tensor) -> tuple[Tensor, list[Tensor]]:
        """(B, k), (B, c) -> logits (B,), and for each hidden layer which neurons are kept (B, N^l)."""
        h, every = torch.cat([e_d, z], dim=1), []
        for layer, pruner in zip(self.layers, self.pruners, strict=True):
            h = torch.relu(layer(h))  # h^l  (B, N^l)
            v_in = pruner(torch.cat([e_d, h], dim=1) if self.neurons else e_d)  # (B, N^l)
            factors, kept = self.factors(v_in)
            every.append(kept)
            h = self.dropout(h * factors)  # h^l(d) = h^l ⊙ π^l(d)
        logit: Tensor = self.head(h)[:, 0]
        return logit, every

    def factors(self, v_in: Tensor) -> tuple[Tensor, Tensor]:
        """π, and 1 for the neurons that are kept and 0 for the others, with gradient; v_in's shape."""
        if self.form == "scaling":
            return self.scale * torch.sigmoid(v_in), torch.ones_like(v_in)
        soft = torch.sigmoid(self._ramped(self.sharpness) * v_in)
        v_out = self.scale * soft if self.form == "fusion" else soft
        step = (v_out > self.threshold).to(v_out.dtype)
        kept = step + (soft - soft.detach())
        return (v_out * step if self.form == "fusion" else kept), kept

    def _regularization(self, every: list[Tensor]) -> Tensor:
        """R_s: the mean over layers of ``λ^l ||r^l - r||``, λ^l being 0 between r_min and r_max, or ``λ |r^l - r|``."""
        low, high = self.sparsity
        if self.form == "scaling" or not every or (alone() and not len(every[0])):
            return self.batches_seen.new_zeros((), dtype=torch.float32)
        r = torch.stack([1 - _mean(kept) for kept in every])  # r^l  (L,)
        self.pruned.copy_(r.detach())
        outside = (r < low) | (r > high)
        penalty = (r - (low + high) / 2).square() * outside
        return self._ramped(self.regularization) * penalty.mean()

    def _ramped(self, ends: tuple[float, float]) -> Tensor:
        """What grows from one value to the other over the first batches."""
        return ends[0] + (ends[1] - ends[0]) * (self.batches_seen / self.ramp).clamp(max=1)


def _mean(kept: Tensor) -> Tensor:
    """Over all rows of the batch (B, N^l), those of other processes included."""
    return kept.mean() if alone() else total(kept.sum()) / (place(len(kept)).rows * kept.shape[1])


def _check_pair(key: str, pair: Sequence[float], highest: float = float("inf")) -> tuple[float, float]:
    """Two numbers from 0 to the highest, the second not below the first."""
    numbers = [] if isinstance(pair, str | int | float) else list(pair)
    plain = all(isinstance(one, int | float) and not isinstance(one, bool) for one in numbers)
    if len(numbers) != 2 or not plain or not 0 <= numbers[0] <= numbers[1] <= highest:
        limit = "" if highest == float("inf") else f" and at most {highest:g}"
        raise ConfigurationError(
            f"{key} must be two numbers such as [0.1, 0.5], rising, at least 0{limit}, got {pair!r}"
        )
    return float(numbers[0]), float(numbers[1])
