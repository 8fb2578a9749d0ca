"""What is compared: models, each with its configuration, and the seeds each is trained with."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import ConfigurationError, unknown_key

SECTION = ("models", "seeds", "base", "training", "workers")
ENTRY = ("label", "architecture", "model", "training")
_LIMITS = ("max_domain_weight_gib",)  # options that refuse a model but do not change it
_HOW = "On the command line separate several by spaces or '|': --params=\"compare.{name}={example}\""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One line of a comparison.

    Attributes:
        label: what it is called.
        architecture: star, dnn …
        model: options of the architecture.
        training: settings of the training.
    """

    label: str
    architecture: str
    model: Mapping[str, Any]
    training: Mapping[str, Any]

    def settings(self) -> dict[str, Any]:
        """Every option that has a bearing on the result, defaults filled in: labels and limits are not among them."""
        from ..models import options
        from ..training.config import TrainingConfig

        model = {**options(self.architecture), **self.model}
        return {
            "architecture": self.architecture,
            "model": {key: value for key, value in sorted(model.items()) if key not in _LIMITS},
            "training": TrainingConfig(**self.training).settings(),
        }

    def check(self) -> None:
        """Raises a ConfigurationError naming the entry where an option is not known or out of range."""
        try:
            check_options(self.architecture, self.model, self.training)
        except ConfigurationError as error:
            raise ConfigurationError(f"'{self.label}': {error}") from error


def check_options(architecture: str, model: Mapping[str, Any], training: Mapping[str, Any]) -> None:
    """Raises a ConfigurationError where an option of a model is not known, or one of its training is not allowed."""
    from ..models import options
    from ..training.config import TrainingConfig

    for key in model:
        if key not in (allowed := [*options(architecture), *_LIMITS]):
            raise ConfigurationError(f"{architecture}.model: {unknown_key(key, allowed)}")
    try:
        TrainingConfig(**training)
    except ConfigurationError as error:
        raise ConfigurationError(f"{architecture}.{error}") from error


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What ``compare`` is asked for: entries, seeds, the label that RelaImpr is measured against, worker processes."""

    entries: tuple[Entry, ...]
    seeds: tuple[int, ...]
    base: str
    workers: int

    @classmethod
    def of(cls, parameters: Mapping[str, Any], known: Sequence[str] | None = None) -> Comparison:
        """Read and check the section ``compare`` of all parameters.

        Args:
            parameters: with the sections ``compare`` and one per architecture.
            known: the architectures there are; None: those of the project.

        Raises:
            ConfigurationError: a key, name, option or number that is not allowed, saying which are.
        """
        from ..models import architectures

        chosen, known = section(parameters), known or architectures()
        names = sorted(known) if chosen["models"] is None else _listed("models", chosen["models"])
        entries = tuple(entry(one, parameters, known) for one in names)
        if not entries:
            raise ConfigurationError(f"compare.models is empty: there is nothing to compare. There are: {_all(known)}.")
        labels = [one.label for one in entries]
        for label in labels:
            if labels.count(label) > 1:
                raise ConfigurationError(
                    f"compare.models has the label '{label}' {labels.count(label)} times: give each entry a label of "
                    "its own, {label: …, architecture: …}."
                )
        for one in entries:
            one.check()
        return cls(entries=entries, seeds=seeds(chosen), base=_base(chosen, labels, known), workers=workers(chosen))


def entry(given: Any, parameters: Mapping[str, Any], known: Sequence[str]) -> Entry:
    """An entry from a name, or from ``{label, architecture, model, training}``.

    What ``model`` and ``training`` hold replaces what the architecture's own configuration section says; between
    the two stands ``compare.training``, which all entries share.
    """
    raw: Any = {"architecture": given} if isinstance(given, str) else given
    if not isinstance(raw, Mapping):
        raise ConfigurationError(f"compare.models: an entry is a name or a group of {', '.join(ENTRY)}, not {given!r}.")
    for key in raw:
        if key not in ENTRY:
            raise ConfigurationError(f"compare.models: an entry's {unknown_key(key, ENTRY)}")
    name = raw.get("architecture")
    if name not in known:
        raise ConfigurationError(f"compare.models: architecture {unknown_key(name, known)}")
    for part in ("model", "training"):
        if not isinstance(raw.get(part) or {}, Mapping):
            raise ConfigurationError(f"compare.models: '{name}': {part} is a group of options, not {raw[part]!r}.")
    own: Mapping[str, Any] = parameters.get(str(name), {})
    shared = {"model": {}, "training": _training(parameters.get("compare") or {})}
    parts: dict[str, dict[str, Any]] = {
        part: {**(own.get(part) or {}), **shared[part], **(raw.get(part) or {})} for part in ("model", "training")
    }
    return Entry(label=str(raw.get("label", name)), architecture=str(name), **parts)


def section(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The section ``compare`` with what it leaves out filled in."""
    given = parameters.get("compare")
    if not isinstance(given, Mapping):
        raise ConfigurationError(f"compare must be a group of parameters ({', '.join(SECTION)}), not {given!r}.")
    for key in given:
        if key not in SECTION:
            raise ConfigurationError(f"parameter 'compare.{key}': {unknown_key(key, SECTION)}")
    return {"models": None, "seeds": [1, 2, 3], "base": "dnn", "workers": 1, **given, "training": _training(given)}


def seeds(chosen: Mapping[str, Any]) -> tuple[int, ...]:
    """The seeds of the section ``compare``: different whole numbers of at least 0."""
    found = _listed("seeds", chosen["seeds"])
    for value in found:
        if not re.fullmatch(r"\d+", str(value)):
            raise ConfigurationError(f"compare.seeds holds {value!r}: a seed is a whole number of at least 0.")
    numbers = tuple(int(value) for value in found)
    if not numbers or len(set(numbers)) < len(numbers):
        raise ConfigurationError(f"compare.seeds must name at least one seed and none twice, got {list(numbers)}.")
    return numbers


def workers(chosen: Mapping[str, Any]) -> int:
    """The number of processes that train at the same time."""
    value = chosen["workers"]
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigurationError(f"compare.workers must be a whole number of at least 1, got {value!r}.")
    return value


def digest(value: Any) -> str:
    """Of anything JSON can say."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:24]


def _training(given: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that the section ``compare`` has for all entries."""
    training = given.get("training") or {}
    if not isinstance(training, Mapping):
        raise ConfigurationError(f"compare.training is a group of settings such as {{epochs: 8}}, not {training!r}.")
    return dict(training)


def _listed(name: str, value: Any) -> list[Any]:
    """A list, or one from the command line, whose parts Kedro would cut at commas."""
    if isinstance(value, str):
        return [part for part in re.split(r"[\s|,;]+", value.strip()) if part]
    if isinstance(value, Sequence):
        return [part for one in value for part in (_listed(name, one) if isinstance(one, str) else [one])]
    if isinstance(value, int) and not isinstance(value, bool):
        return [value]
    how = _HOW.format(name=name, example="1 2 3" if name == "seeds" else "star dnn")
    raise ConfigurationError(f"compare.{name} must be a list, not {value!r}. {how}")


def _base(chosen: Mapping[str, Any], labels: Sequence[str], known: Sequence[str]) -> str:
    base = chosen["base"]
    if base not in labels and base not in known:
        raise ConfigurationError(f"compare.base: the label {unknown_key(base, labels)}")
    return str(base)


def _all(known: Sequence[str]) -> str:
    return ", ".join(sorted(known))
