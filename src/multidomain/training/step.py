"""One update of a model: what :func:`.loop.fit` does with a batch of an epoch, and a stream with one of its buffer."""

from __future__ import annotations

from contextlib import nullcontext

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from ..batch import Batch
from ..layers import synchronised
from ..layers.remote import RemoteTable
from ..models.base import MultiDomainModel
from .device import autocast
from .exchange import GradientExchange
from .guard import GradientGuard
from .optimizers import Optimizers


class Step:
    """The mean binary cross entropy plus ``model.auxiliary_loss()``, its gradients, their guard and the update.

    Args:
        model: in training mode, on ``device``.
        optimizers: of its parameters.
        guard: sees the gradients before the update.
        device: where batches are.
        offset: of the logits of sampled rows, see :mod:`.sampling`.
        precision: of products, see :class:`.config.TrainingConfig`.
        exchange: of gradients with the other workers, where several train together.
    """

    def __init__(
        self,
        model: MultiDomainModel,
        optimizers: Optimizers,
        guard: GradientGuard,
        *,
        device: torch.device,
        offset: float = 0.0,
        precision: str = "auto",
        exchange: GradientExchange | None = None,
    ) -> None:
        self.model, self.optimizers, self.guard = model, optimizers, guard
        self.device, self.offset, self.precision, self.exchange = device, offset, precision, exchange
        self._remote = [module for module in model.modules() if isinstance(module, RemoteTable)]

    def __call__(self, batch: Batch, *, epoch: int, step: int, number: int) -> tuple[Tensor, Tensor]:
        """Learn one batch.

        Args:
            batch: B rows.
            epoch, step: where this is, from 1, for messages.
            number: steps since training began, from 0.

        Returns:
            the loss, a scalar, and the scores (B,), both detached and on the device.

        Raises:
            TrainingError: an earlier step went wrong, and this one cannot be taken for it.
        """
        try:
            self.optimizers.announce(number)
            with autocast(self.device, self.precision):
                scores = self.model(batch)
                auxiliary = self.model.auxiliary_loss()
            of_sample = scores.float() - self.offset if self.offset else scores.float()
            loss = self._loss(of_sample, batch, auxiliary.float())
            for table in self._remote:
                loss = loss + table.anchor()
            self.optimizers.zero_grad()
            with synchronised.peers_watched() if self._remote else nullcontext():
                loss.backward()  # type: ignore[no-untyped-call]
            loss = self._watched(step, batch, loss)
        except Exception:
            self.guard.check(epoch)  # what went wrong a few steps ago explains more
            raise
        self.optimizers.step(number)
        return loss.detach(), scores.detach()

    def _loss(self, scores: Tensor, batch: Batch, auxiliary: Tensor) -> Tensor:
        """The mean over the batch, or the part of it that the rows of this worker have: the parts add up to it."""
        if self.exchange is None:
            return binary_cross_entropy_with_logits(scores, batch.label, batch.weight) + auxiliary
        rows = synchronised.place(len(batch)).rows
        own = binary_cross_entropy_with_logits(scores, batch.label, batch.weight, reduction="sum")
        return own / rows + auxiliary * (len(batch) / rows)

    def _watched(self, step: int, batch: Batch, loss: Tensor) -> Tensor:
        """Watch the gradients, which become those of the whole batch, as the loss that is returned does."""
        if self.exchange is None:
            self.guard.watch(step, batch, loss)
            return loss
        head = self.exchange.combine(torch.stack([loss.detach().float(), batch.numerical.sum().float()]))
        self.guard.remember(step, head)
        return head[0]
