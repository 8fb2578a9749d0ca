"""How a model is trained: a plain dataclass, so that a configuration section is checked before anything runs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from ..errors import ConfigurationError, unknown_key

_CHOICES = {
    "monitor": ("auc", "logloss"),
    "batching": ("mixed", "domain"),
    "schedule": ("constant", "cosine"),
    "embedding_optimizer": ("adam", "rowwise_adagrad"),
    "precision": ("auto", "float32", "bfloat16"),
    "embedding_shards": ("none", "rows"),
}
_WHOLE = ("epochs", "batch_size", "evaluation_batch_size", "shuffle_window", "workers")
_POSITIVE = ("learning_rate", "embedding_learning_rate", "clip_norm")
_NOT_NEGATIVE = ("weight_decay", "embedding_weight_decay")
_SWITCHES = ("sample_weight",)
# settings of no account at their default: results made before are the same
_LATER = ("negative_rate", "sample_weight", "precision")
_HOW = ("workers", "embedding_shards")  # settings that say how it is computed: results are the same
_MAY_BE_NONE = ("embedding_learning_rate", "clip_norm", "patience")


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """The settings of one training run.

    Attributes:
        epochs: the most epochs to train.
        batch_size: rows per step.
        learning_rate: of Adam, for everything but the sparse embedding tables.
        weight_decay: decoupled (AdamW), per unit of learning rate; never on biases, normalization and domain factors.
        embedding_optimizer: of the sparse embedding tables: ``adam`` keeps two moments as large as the table,
            ``rowwise_adagrad`` one number per row; the latter wants an `embedding_learning_rate` of 0.01 to 0.1.
        embedding_learning_rate: of the embedding tables; the same as `learning_rate` when None.
        embedding_weight_decay: decoupled, on the rows that a batch touches.
        patience: epochs without a better validation score before training stops; None never stops early.
        monitor: the validation score that picks the best epoch: ``auc`` or ``logloss``.
        batching: ``mixed`` takes every row once per epoch in random order; ``domain`` draws a domain with probability
            proportional to its rows, then a batch from it (STAR §3.2).
        evaluation_batch_size: rows per step in validation and prediction.
        clip_norm: the largest norm of the gradient of all parameters together; None does not clip.
        schedule: ``constant``, or ``cosine`` from the learning rates down to zero over all steps of `epochs`.
        shuffle_window: rows shuffled together; up to this many rows, an epoch is one full permutation.
        negative_rate: the share of the negatives that an epoch meets, drawn anew for each, beside all positives; what
            the model learns is corrected for it, see :mod:`.sampling`. Validation and test are never sampled.
        sample_weight: whether rows count by the column that the schema names (``roles: {weight: …}``).
        precision: of products in training: ``bfloat16``, ``float32``, or ``auto``, which is bf16 on CUDA that computes
            it natively and float32 on the CPU, where a run is to have the same result on every machine. Weights,
            moments and scores of evaluation are float32 always.
        workers: processes on this machine that train together, each on its share of the rows of every batch; see
            :mod:`.workers`. Under torchrun, torchrun says how many.
        embedding_shards: what each worker holds of the embedding table: ``none``, all of it; ``rows``, its share of the
            rows (:mod:`.shards`), which needs TorchRec, ``embedding_optimizer: rowwise_adagrad`` and no `clip_norm`.
            A single worker holds all of it either way.

    Raises:
        ConfigurationError: an unknown key, a value of another type or out of range.
    """

    epochs: int = 10
    batch_size: int = 2000
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    embedding_optimizer: str = "adam"
    embedding_learning_rate: float | None = None
    embedding_weight_decay: float = 0.0
    patience: int | None = 2
    monitor: str = "auc"
    batching: str = "mixed"
    evaluation_batch_size: int = 16384
    clip_norm: float | None = None
    schedule: str = "constant"
    shuffle_window: int = 1 << 22
    negative_rate: float = 1.0
    sample_weight: bool = False
    precision: str = "auto"
    workers: int = 1
    embedding_shards: str = "none"

    def __new__(cls, **values: Any) -> TrainingConfig:
        """Names an unknown key before the generated constructor meets it."""
        allowed = [field.name for field in fields(cls)]
        for key in values:
            if key not in allowed:
                raise ConfigurationError(f"training: {unknown_key(key, allowed)}")
        return super().__new__(cls)

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> TrainingConfig:
        """The settings of a configuration section."""
        return cls(**raw)

    def settings(self) -> dict[str, Any]:
        """What a result depends on: every setting, less those that came later and are at their default.

        The number of workers and what they hold are not among them: that changes rounding alone, and a run may go on
        with another.
        """
        plain = {field.name: field.default for field in fields(self) if field.name in _LATER}
        kept = {key: value for key, value in asdict(self).items() if key not in _HOW}
        return {key: value for key, value in kept.items() if key not in plain or value != plain[key]}

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value is not None or field.name not in _MAY_BE_NONE:
                problem = _problem(field.name, value)
                if problem:
                    raise ConfigurationError(f"training: {field.name} must be {problem}, got {value!r}.")
        self.check_workers(self.workers)
        self._check_shards()

    def check_workers(self, workers: int) -> None:
        """Raises a ConfigurationError when a batch has fewer rows than there are workers to share them."""
        if self.batch_size < workers:
            raise ConfigurationError(
                f"training: workers is {workers}, but a batch has {self.batch_size} rows (batch_size): some workers "
                "would have none. Choose fewer workers or a larger batch_size, which is of all workers together."
            )

    def _check_shards(self) -> None:
        if self.embedding_shards == "none":
            return
        if self.embedding_optimizer != "rowwise_adagrad":
            raise ConfigurationError(
                f"training: embedding_shards is '{self.embedding_shards}', which goes with embedding_optimizer: "
                f"rowwise_adagrad alone, got '{self.embedding_optimizer}'. Set that (it wants an "
                "embedding_learning_rate of 0.01 to 0.1), or embedding_shards: none."
            )
        if self.clip_norm is not None:
            raise ConfigurationError(
                f"training: embedding_shards is '{self.embedding_shards}': rows are then updated before the norm of "
                f"all gradients is known, so clip_norm must be null, got {self.clip_norm:g}."
            )


def _problem(name: str, value: Any) -> str | None:
    """What the value should have been, or None when it is allowed."""
    if name in _CHOICES:
        return None if value in _CHOICES[name] else f"one of {', '.join(_CHOICES[name])}"
    if name in _WHOLE or name == "patience":
        return None if _is_whole(value) and value >= 1 else "a whole number of at least 1" + _or_null(name)
    if name in _SWITCHES:
        return None if isinstance(value, bool) else "true or false"
    number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if name in _NOT_NEGATIVE:
        return None if number and value >= 0 else "a number of at least 0"
    if name == "negative_rate":
        return None if number and 0 < value <= 1 else "a number above 0 and at most 1"
    return None if number and value > 0 else "a number above 0" + _or_null(name)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _or_null(name: str) -> str:
    return " or null" if name in _MAY_BE_NONE else ""
