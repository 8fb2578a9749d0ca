"""Multi-Domain Adversarial Learning: MuLANN.

Alice Schoenauer-Sebag, Louise Heinrich, Marc Schoenauer, Michele Sebag, Lani F. Wu, Steven J. Altschuler. ICLR 2019.
https://arxiv.org/abs/1903.09239
As a baseline of multi-domain models, "MulANN": Sheng et al. 2021 (STAR), section 4.1.

Notation: B rows, M domains, p the domain of a row, z the normalized embeddings (width c); G_f the feature extractor,
G_y the label classifier, G_d the domain discriminator; L_y and L_d their losses, λ the weight of the adversary.
The saddle point: (f, y) minimize L_y - λ L_d while d minimizes L_d.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Unpack

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...batch import Batch
from ...inputs import InputSchema
from ...layers.domain_linear import DomainOutputs
from ...layers.mlp import MLP, HiddenLayers
from ...layers.synchronised import total
from ..base import InputOptions, MultiDomainModel, check_not_negative, check_shares, check_widths


class GradientReversal(torch.autograd.Function):
    """The identity forwards; backwards the gradient times -λ (Ganin et al. 2016, section 3.2)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: float) -> Tensor:
        """x as it is."""
        ctx.weight = weight
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        """-λ times the gradient of x; none for λ."""
        return -ctx.weight * gradients[0], None


class DomainDiscriminator(nn.Module):
    """G_d: which domain is a row from? Hidden layers and a softmax over the M domains.

    Args:
        in_features: width of the features.
        hidden: widths of the hidden layers.
        domains: M.
        dropout: share of hidden activations dropped in training.
    """

    def __init__(self, *, in_features: int, hidden: Sequence[int], domains: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.domains = domains
        self.layers = HiddenLayers(in_features=in_features, hidden=hidden, dropout=dropout)
        self.output = DomainOutputs(in_features=self.layers.features, out_features=domains)

    def forward(self, features: Tensor) -> Tensor:
        """(B, h) -> logits (B, M)."""
        logits: Tensor = self.output(self.layers(features))
        return logits

    def loss(self, features: Tensor, domain: Tensor) -> Tensor:
        """L_d: the mean cross-entropy of the rows whose domain is known; 0 where there are none."""
        wrong = F.cross_entropy(self(features), domain.long(), ignore_index=self.domains, reduction="sum")
        return total(wrong) / total((domain < self.domains).sum()).clamp(min=1)


class MuLANN(MultiDomainModel):
    """The Base model with a domain discriminator that its features shall deceive.

    The discriminator stands behind a gradient reversal: it learns to tell the domains apart by its own gradient, and
    the extractor, embeddings included, gets that gradient times -λ.

    What the papers leave open, as chosen here (†):

    - † where the discriminator stands: after the third of the Base model's six hidden layers. The extractor is
      512-256-128, the label classifier 64-32-16-1.
    - † a discriminator of two layers of 128 (the paper: two of 1024 on features of images), a softmax over the domains.
    - λ = 0.1, the value the authors' instructions give for images. It scales the reversed gradient alone (as in their
      code); the discriminator learns at full rate.
    - † without the paper's third part, which tells unlabelled rows of unseen classes from labelled ones: here every row
      has its label, and STAR describes the baseline by its discriminator alone.
    - Batch normalization of the embeddings, as in the Base model which the discriminator is added to.
    - A row of an unknown domain adds nothing to the discriminator's loss. In evaluation it is not computed.
    - The auxiliary network is on: STAR's comparison gives it to this model too (sections 4.1 and 4.3.3); it stands
      beside the features, so the domain reaches the logit although the features shall hide it.

    Args:
        schema: the inputs.
        hidden: widths of the layers of the feature extractor.
        classifier: widths of the hidden layers of the label classifier.
        discriminator: widths of the hidden layers of the domain discriminator.
        adversary: λ, what the extractor's share of the discriminator's gradient is multiplied with, reversed.
        normalization: batch (the Base model's), partitioned, layer or none.
        auxiliary: whether the auxiliary network is added.
        dropout: share of hidden activations dropped in training; the paper has 0.5, in the discriminator alone.
        inputs: see :class:`~multidomain.models.base.MultiDomainModel`.
    """

    def __init__(
        self,
        schema: InputSchema,
        *,
        hidden: Sequence[int] = (512, 256, 128),
        classifier: Sequence[int] = (64, 32, 16),
        discriminator: Sequence[int] = (128, 128),
        adversary: float = 0.1,
        normalization: str = "batch",
        auxiliary: bool = True,
        dropout: float = 0.0,
        **inputs: Unpack[InputOptions],
    ) -> None:
        super().__init__(schema, normalization=normalization, **inputs)
        hidden, classifier = check_widths("hidden", hidden), check_widths("classifier", classifier)
        discriminator = check_widths("discriminator", discriminator)
        check_shares(dropout=dropout)
        check_not_negative(adversary=adversary)
        self.adversary = float(adversary)
        self.extractor = HiddenLayers(in_features=self.inputs.width, hidden=hidden, dropout=dropout)
        h = self.extractor.features
        self.classifier = MLP(in_features=h, hidden=classifier, dropout=dropout)
        self.discriminator = DomainDiscriminator(
            in_features=h, hidden=discriminator, domains=schema.domains, dropout=dropout
        )
        self._discriminator_loss: Tensor | None = None
        self.add_auxiliary(auxiliary)

    def forward(self, batch: Batch) -> Tensor:
        """Logits (B,)."""
        x = self.inputs(batch)
        z = self.normalization(x.z, batch.domain)  # (B, c)
        features = self.extractor(z)  # G_f  (B, h)
        self._discriminator_loss = self._adversarial(features, batch.domain) if self.training else None  # L_d
        logit: Tensor = self.classifier(features)[:, 0]  # G_y  (B,)
        return self.with_auxiliary(logit, x)

    def _adversarial(self, features: Tensor, domain: Tensor) -> Tensor:
        """L_d, whose gradient reaches the features times -λ."""
        reversed_: Tensor = GradientReversal.apply(features, self.adversary)  # type: ignore[no-untyped-call]
        return self.discriminator.loss(reversed_, domain)

    def auxiliary_loss(self) -> Tensor:
        """L_d of the training batch last seen; nothing in evaluation."""
        loss = super().auxiliary_loss()
        return loss if self._discriminator_loss is None else loss + self._discriminator_loss
