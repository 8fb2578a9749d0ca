"""What every architecture is: a network from a batch to logits, and nothing more."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TypedDict

import torch
from torch import Tensor, nn

from ..batch import Batch
from ..errors import ConfigurationError, unknown_key
from ..inputs import InputSchema
from ..layers.auxiliary import AuxiliaryNetwork
from ..layers.distribution import DISTRIBUTIONS
from ..layers.history import ATTENTIONS, HISTORIES, HistoryOptions, why_not
from ..layers.inputs import InputLayer, Inputs
from ..layers.normalization import NORMALIZATIONS
from ..layers.normalization import normalization as make_normalization


class TableOptions(TypedDict, total=False):
    """The options of :class:`MultiDomainModel` that no subclass has an opinion on."""

    embedding_dim: int
    unknown_rate: float
    sparse: bool


class InputOptions(TableOptions, total=False):
    """The options of :class:`MultiDomainModel` that a subclass passes on as they are."""

    history: str | HistoryOptions
    distribution: str


class MultiDomainModel(nn.Module, ABC):
    """Scores impressions of M domains.

    A subclass takes the schema and keywords; its own and those of :class:`InputOptions` are exactly the keys of its
    configuration file. In evaluation the score of a row does not depend on the rows beside it. A tensor whose size
    grows with the number of domains is called ``domain_…``, so that :func:`multidomain.models.build` can tell what they
    need before making them.

    Args:
        schema: the inputs.
        normalization: of z: partitioned, batch, layer or none.
        embedding_dim: d.
        history: what makes the history of a row a vector; see :mod:`multidomain.layers.history`. A name, or the
            options themselves.
        distribution: what describes the distribution of a row; see :mod:`multidomain.layers.distribution`.
        unknown_rate: share of ids, and of domains, replaced by "unknown" in training.
        sparse: sparse gradients for the embedding table.

    Attributes:
        inputs: batch -> fields, z and condition.
        normalization: ``(z (B, c), domain (B,)) -> (B, c)``.
        auxiliary: STAR's auxiliary network, or None; made by :meth:`add_auxiliary`.
        logit_offset: a constant added to every logit; training sets it where it meets a share of the negatives alone.
    """

    auxiliary: AuxiliaryNetwork | None
    logit_offset: float | None = None

    def __init__(
        self,
        schema: InputSchema,
        *,
        normalization: str = "none",
        embedding_dim: int = 16,
        history: str | HistoryOptions = "mean",
        distribution: str = "domain",
        unknown_rate: float = 0.01,
        sparse: bool = True,
    ) -> None:
        super().__init__()
        check_sizes(embedding_dim=embedding_dim)
        check_choice("normalization", normalization, NORMALIZATIONS)
        check_history(schema, history)
        check_choice("distribution", distribution, DISTRIBUTIONS)
        check_shares(unknown_rate=unknown_rate)
        check_switches(sparse=sparse)
        self.schema = schema
        self.inputs = InputLayer(
            schema=schema,
            embedding_dim=embedding_dim,
            history=history,
            distribution=distribution,
            unknown_rate=unknown_rate,
            sparse=sparse,
        )
        self.normalization = make_normalization(normalization, features=self.inputs.width, domains=schema.domains)
        self.auxiliary = None

    def add_auxiliary(self, wanted: bool) -> None:
        """Make the auxiliary network (STAR, section 3.5) if it is wanted: the last step of every constructor."""
        check_switches(auxiliary=wanted)
        if wanted:
            condition = self.inputs.describe_distribution()
            self.auxiliary = AuxiliaryNetwork(features=self.inputs.width, condition=condition)

    def with_auxiliary(self, logit: Tensor, x: Inputs) -> Tensor:
        """``s_m + s_a`` (STAR, Eq. 7), or ``s_m`` (B,) itself without auxiliary network: the last step of `forward`.

        To both the offset of the logits is added, if there is one.
        """
        if self.logit_offset:
            logit = logit + self.logit_offset
        if self.auxiliary is None:
            return logit
        s_a: Tensor = self.auxiliary(x.z, x.condition)  # z before normalization
        return logit + s_a

    @abstractmethod
    def forward(self, batch: Batch) -> Tensor:
        """Logits (B,)."""

    def auxiliary_loss(self) -> Tensor:
        """A scalar to add to the loss of the batch last seen; 0 unless the paper adds one."""
        loss = self.inputs.loss
        return torch.zeros((), device=next(self.parameters()).device) if loss is None else loss

    def insights(self, batch: Batch) -> dict[str, Tensor]:  # noqa: ARG002
        """What the model does with each row of a batch, in evaluation, to be drawn by domain: name -> (B, …).

        Nothing unless the model overrides it. :mod:`multidomain.evaluation.insights` says how each name is drawn.
        """
        return {}

    def insight_labels(self) -> dict[str, Sequence[str]]:
        """What stands along the last axis of an insight, where that has names, such as fields: insight -> names."""
        return {}

    def diagnostics(self) -> dict[str, float]:
        """Numbers about the state of the model worth following over the epochs: name -> value.

        Those of the distribution representation, if any, and what the model adds in an override. Training logs them
        after each epoch and adds them to its history.
        """
        return self.inputs.diagnostics()

    def serving_form(self) -> nn.Module:
        """The network to serve: batch -> logits (B,), the same to 1e-5 in evaluation, perhaps computed faster."""
        return self


def check_history(schema: InputSchema, history: str | HistoryOptions) -> None:
    """Raise ConfigurationError unless these inputs can be encoded that way."""
    if isinstance(history, str):
        check_choice("history", history, HISTORIES)
    else:
        check_choice("history", history.kind, ATTENTIONS)
        sizes = ("items_per_chunk", "hidden", "heads", "attention_dim", "orders")
        check_sizes(**{key: getattr(history, key) for key in sizes})
        if not check_widths("micro", history.micro):
            raise ConfigurationError("micro must have at least one layer, such as [8, 4], got []")
        check_switches(psrg=history.psrg, pcrg=history.pcrg, softmax=history.softmax, mean=history.mean)
        check_positive(eta=history.eta)
    reason = why_not(schema)
    if history != "mean" and reason is not None:
        kind = f"history: '{history}'" if isinstance(history, str) else f"The attention '{history.kind}'"
        raise ConfigurationError(
            f"{kind} compares the events of a history with the candidate, but {reason}. With these inputs an "
            "architecture that pools the history by mean is possible (history: mean)."
        )


def check_own_history(inputs: Mapping[str, object]) -> None:
    """Raise ConfigurationError if a history encoder is chosen for an architecture that *is* one."""
    if "history" in inputs:
        raise ConfigurationError(
            f"history: '{inputs['history']}' is not for this architecture, which is a history encoder itself. Leave "
            f"`history` out, or take an architecture that has none of its own, such as dnn, with one of: "
            f"{', '.join(HISTORIES)}."
        )


def check_choice(key: str, value: str, allowed: Sequence[str]) -> None:
    """Raise ConfigurationError unless the value of ``key`` is one of those allowed."""
    if value not in allowed:
        raise ConfigurationError(f"{key}: {unknown_key(value, allowed)}")


def check_sizes(**sizes: int) -> None:
    """Raise ConfigurationError unless every value is a whole number of at least 1."""
    for key, size in sizes.items():
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise ConfigurationError(f"{key} must be a whole number of at least 1, got {size!r}")


def check_positive(**values: float) -> None:
    """Raise ConfigurationError unless every value is a number above 0."""
    for key, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
            raise ConfigurationError(f"{key} must be a number above 0, got {value!r}")


def check_not_negative(**values: float) -> None:
    """Raise ConfigurationError unless every value is a number of at least 0."""
    for key, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < float("inf"):
            raise ConfigurationError(f"{key} must be a number of at least 0, got {value!r}")


def check_widths(key: str, widths: Sequence[int]) -> tuple[int, ...]:
    """The widths of hidden layers as a tuple; ConfigurationError unless each is a whole number of at least 1."""
    if isinstance(widths, str | int):
        raise ConfigurationError(f"{key} must be a list of layer widths such as [128, 64], got {widths!r}")
    for number, width in enumerate(widths):
        check_sizes(**{f"{key}[{number}]": width})
    return tuple(widths)


def check_shares(**shares: float) -> None:
    """Raise ConfigurationError unless every value is a number of at least 0 and below 1."""
    for key, value in shares.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1:
            raise ConfigurationError(f"{key} must be a number of at least 0 and below 1, got {value!r}")


def check_switches(**switches: bool) -> None:
    """Raise ConfigurationError unless every value is true or false."""
    for key, value in switches.items():
        if not isinstance(value, bool):
            raise ConfigurationError(f"{key} must be true or false, got {value!r}")
