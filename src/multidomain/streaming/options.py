"""The section ``stream`` of the configuration."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from ..errors import ConfigurationError, unknown_key
from ..training.config import TrainingConfig

ORDERS = ("buffer", "chronological")
KINDS = ("folder", "redis")


@dataclass(frozen=True, kw_only=True)
class SourceOptions:
    """Where impressions come from.

    Attributes:
        kind: ``folder`` of Parquet files, or ``redis`` for a Redis Stream.
        path: the folder.
        poll_seconds: how often it is looked at for new files.
        address: ``host:port`` of the Redis server; None: ``$MULTIDOMAIN_REDIS``.
        key: of the Redis Stream.
        group, consumer: of its reader.
        retry_seconds: how long a server that is away is asked again before the run ends.
        idle_seconds: the stream has ended when nothing came for so long; None: only when it says so itself.
    """

    kind: str = "folder"
    path: str | None = None
    poll_seconds: float = 1.0
    address: str | None = None
    key: str = "impressions"
    group: str = "multidomain"
    consumer: str = "trainer"
    retry_seconds: float = 30.0
    idle_seconds: float | None = None

    def __post_init__(self) -> None:
        _choice("source.kind", self.kind, KINDS)
        for name in ("poll_seconds", "retry_seconds", "idle_seconds"):
            value = getattr(self, name)
            if not (_number(value) and value > 0) and not (name == "idle_seconds" and value is None):
                raise ConfigurationError(f"stream.source.{name} must be a number above 0, got {value!r}")


@dataclass(frozen=True, kw_only=True)
class VocabularyOptions:
    """Which ids come and go.

    Attributes:
        every: rows between two changes; None: the vocabularies stay as they are.
        minimum_count: how often a new value must have come.
        forget_after: a value that so many rows did not hold leaves; None: none does.
    """

    every: int | None = 200_000
    minimum_count: int = 5
    forget_after: int | None = 5_000_000

    def __post_init__(self) -> None:
        _whole("vocabulary", self, ("every", "minimum_count", "forget_after"), or_null=("every", "forget_after"))


@dataclass(frozen=True, kw_only=True)
class StreamOptions:
    """The settings of one stream.

    Attributes:
        source: where rows come from.
        order: ``buffer``: batches are drawn at random from a sliding window of history (STAR, section 4.4);
            ``chronological``: rows are learnt as they come, the comparison.
        buffer_rows: rows of that window.
        report_rows: rows of a window of prequential metrics.
        checkpoint_rows: rows between two checkpoints: what is done again after a crash.
        package_rows: rows between two versions; None: none is packaged.
        gate_rows: at most so many of the rows since the last version: on them a version is compared with the champion.
        ledger: whether the impressions that each step learnt are written down.
        vocabulary: which ids come and go.

    Raises:
        ConfigurationError: an unknown key, or a value that is not allowed.
    """

    source: SourceOptions = field(default_factory=SourceOptions)
    order: str = "buffer"
    buffer_rows: int = 200_000
    report_rows: int = 50_000
    checkpoint_rows: int = 200_000
    package_rows: int | None = 1_000_000
    gate_rows: int = 50_000
    ledger: bool = False
    vocabulary: VocabularyOptions = field(default_factory=VocabularyOptions)

    @classmethod
    def read(cls, given: Mapping[str, Any]) -> StreamOptions:
        """The options of a configuration section.

        Raises:
            ConfigurationError: an unknown key, which the message names, or a value that is not allowed.
        """
        parts: dict[str, Any] = {"source": SourceOptions, "vocabulary": VocabularyOptions}
        values = dict(_known("stream", given, cls))
        for name, kind in parts.items():
            if name in values:
                values[name] = kind(**_known(f"stream.{name}", values[name], kind))
        return cls(**values)

    def __post_init__(self) -> None:
        _choice("order", self.order, ORDERS)
        whole = ("buffer_rows", "report_rows", "checkpoint_rows", "package_rows", "gate_rows")
        _whole("", self, whole, or_null=("package_rows",))
        if not isinstance(self.ledger, bool):
            raise ConfigurationError(f"stream.ledger must be true or false, got {self.ledger!r}")

    def settings(self) -> dict[str, Any]:
        """What the weights at any row of the stream depend on."""
        kept = asdict(self)
        source = kept.pop("source")
        of_buffer = ("buffer_rows",) if self.order == "buffer" else ()
        named = {name: source[name] for name in ("kind", "path", "key", "group")}
        return {"source": named, **{name: kept[name] for name in ("order", *of_buffer, "vocabulary")}}


def check_training(training: TrainingConfig, options: StreamOptions) -> None:
    """Refuse settings of a training that a stream cannot follow.

    Raises:
        ConfigurationError: names the setting, and what is allowed.
    """
    plain: dict[str, tuple[Any, str]] = {
        "batching": ("mixed", "batches are drawn from the buffer"),
        "schedule": ("constant", "a stream has no last step"),
        "negative_rate": (1.0, "every row is learnt once"),
        "sample_weight": (False, "every row counts the same"),
        "workers": (1, "one process follows it"),
        "embedding_shards": ("none", "one process follows it"),
    }
    for name, (wanted, why) in plain.items():
        if getattr(training, name) != wanted:
            raise ConfigurationError(
                f"training.{name} is {getattr(training, name)!r}; of a stream it must be {wanted!r}: {why}."
            )
    if options.order == "buffer" and options.buffer_rows < training.batch_size:
        raise ConfigurationError(
            f"stream.buffer_rows ({options.buffer_rows:,}) must be at least training.batch_size "
            f"({training.batch_size:,}), better a hundred times as much."
        )


def _known(section: str, given: Any, kind: type) -> Mapping[str, Any]:
    if not isinstance(given, Mapping):
        raise ConfigurationError(f"{section} must be a group of settings, got {given!r}")
    allowed = [one.name for one in fields(kind)]
    for key in given:
        if key not in allowed:
            raise ConfigurationError(f"{section}: {unknown_key(key, allowed)}")
    return given


def _choice(name: str, value: Any, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ConfigurationError(f"stream.{name} must be one of {', '.join(allowed)}, got {value!r}")


def _whole(section: str, one: Any, names: tuple[str, ...], *, or_null: tuple[str, ...]) -> None:
    prefix = f"stream.{section}." if section else "stream."
    for name in names:
        value = getattr(one, name)
        if value is None and name in or_null:
            continue
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            more = " or null" if name in or_null else ""
            raise ConfigurationError(f"{prefix}{name} must be a whole number of at least 1{more}, got {value!r}")


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
