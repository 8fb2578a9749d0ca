"""The optimizers of a model: of the rows of tables, of domains, fused Adam for the rest; and their learning rates."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ..layers.domain_linear import DomainLinear, StarLinear
from ..layers.remote import RemoteTable
from .config import TrainingConfig
from .domain_optimizer import DomainAdam
from .embedding_optimizer import LazyAdam
from .rowwise_adagrad import RowwiseAdagrad

_UNDECAYED = ("bias", "domain_weight", "domain_bias", "codebooks")


class Optimizers:
    """Every parameter of a model under one of at most three optimizers, but for a table divided among workers.

    Attributes:
        named: ``dense``, ``domains`` and ``embeddings``, as far as the model has such parameters.
    """

    def __init__(self, model: nn.Module, config: TrainingConfig, *, steps_per_epoch: int) -> None:
        self.config, self._total = config, config.epochs * steps_per_epoch
        self.named: dict[str, torch.optim.Optimizer] = {}
        sparse, domains = sparse_tables(model), domain_weights(model)
        taken = {id(parameter) for parameter in (*sparse, *domains)}
        dense = {name: p for name, p in model.named_parameters() if p.requires_grad and id(p) not in taken}
        if dense:
            self.named["dense"] = torch.optim.AdamW(_groups(dense, config), lr=config.learning_rate, fused=True)
        if domains:
            self.named["domains"] = DomainAdam(domains, lr=config.learning_rate)
        if sparse:
            rate = config.embedding_learning_rate or config.learning_rate
            decay = config.embedding_weight_decay
            kind = RowwiseAdagrad if config.embedding_optimizer == "rowwise_adagrad" else LazyAdam
            self.named["embeddings"] = kind(sparse, lr=rate, weight_decay=decay)
        self._fused = [module for module in model.modules() if isinstance(module, RemoteTable)]
        self._rates = {name: one.param_groups[0]["lr"] for name, one in self.named.items()}

    def zero_grad(self) -> None:
        """Forgets all gradients."""
        for optimizer in self.named.values():
            optimizer.zero_grad(set_to_none=True)

    def announce(self, number: int) -> None:
        """Before anything is looked up: tells a table that the backward pass updates the learning rate of the step."""
        for table in self._fused:
            table.set_rate(self._factor(number))

    def step(self, number: int) -> None:
        """Updates all parameters; `number` counts the steps since training began, from 0."""
        factor = self._factor(number)
        for name, optimizer in self.named.items():
            for group in optimizer.param_groups:
                group["lr"] = self._rates[name] * factor
            optimizer.step()

    def _factor(self, number: int) -> float:
        """Of the learning rates."""
        return 0.5 * (1 + math.cos(math.pi * number / self._total)) if self.config.schedule == "cosine" else 1.0


def sparse_tables(model: nn.Module) -> list[Tensor]:
    """The trainable tables that are made to give sparse gradients, each once."""
    embeddings = [m for m in model.modules() if isinstance(m, nn.Embedding | nn.EmbeddingBag) and m.sparse]
    tables = {id(m.weight): m.weight for m in embeddings if m.weight.requires_grad}
    return list(tables.values())


def domain_weights(model: nn.Module) -> list[Tensor]:
    """The trainable weights that a domain's rows alone meet; from now on their gradients are sparse by domain."""
    weights: list[Tensor] = []
    for layer in model.modules():
        if isinstance(layer, StarLinear | DomainLinear):
            layer.sparse = True
            weights += [weight for weight in (layer.domain_weight, layer.domain_bias) if weight.requires_grad]
    return weights


def decays(name: str, parameter: nn.Parameter) -> bool:
    """Whether weight decay applies.

    Not to biases and normalization, nor to domain factors, which rest at 1, not 0, nor to codebooks, which learn from
    their own loss alone.
    """
    last = name.rpartition(".")[2]
    return parameter.dim() > 1 and last not in _UNDECAYED


def _groups(parameters: dict[str, nn.Parameter], config: TrainingConfig) -> list[dict[str, object]]:
    decayed = [p for name, p in parameters.items() if decays(name, p)]
    plain = [p for name, p in parameters.items() if not decays(name, p)]
    groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]
