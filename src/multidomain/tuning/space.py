"""The search space of a model: settings by name, each a range or a list of choices. One form for every model.

    training.learning_rate: {low: 0.0001, high: 0.01, log: true}
    model.dropout: {low: 0.0, high: 0.5, step: 0.1}
    model.hidden: {choices: [[256, 128, 64], [512, 256, 128]]}

Whole ends make a range of whole numbers.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import ConfigurationError, unknown_key

if TYPE_CHECKING:
    from optuna import Trial

_KEYS = ("low", "high", "step", "log", "choices")
SECTIONS = ("model", "training")
COMMON = "all"


@dataclass(frozen=True, kw_only=True)
class Option:
    """One setting: what a trial may choose.

    Attributes:
        name: ``model.<option>`` or ``training.<option>``.
        low, high: ends of a range, both possible.
        step: distance of two values; None: any.
        log: even on a logarithmic scale.
        choices: instead of a range.
    """

    name: str
    low: float | None = None
    high: float | None = None
    step: float | None = None
    log: bool = False
    choices: Sequence[Any] | None = None

    @classmethod
    def read(cls, name: str, given: Any) -> Option:
        """From configuration.

        Raises:
            ConfigurationError: neither a range nor choices, or not both ends of one.
        """
        if not isinstance(given, Mapping):
            raise ConfigurationError(f"tune.space: {name} must be {{low, high}} or {{choices}}, got {given!r}")
        for key in given:
            if key not in _KEYS:
                raise ConfigurationError(f"tune.space: {name}: {unknown_key(key, _KEYS)}")
        option = cls(name=name, **given)
        option._check()
        return option

    def suggest(self, trial: Trial) -> Any:
        """What this trial takes."""
        if self.choices is not None:
            return json.loads(trial.suggest_categorical(self.name, [json.dumps(choice) for choice in self.choices]))
        assert self.low is not None
        assert self.high is not None
        if isinstance(self.low, int) and isinstance(self.high, int):
            return trial.suggest_int(self.name, self.low, self.high, step=int(self.step or 1), log=self.log)
        return trial.suggest_float(self.name, self.low, self.high, step=self.step, log=self.log)

    def stored(self, value: Any) -> Any:
        """A value as the study holds it; None when it is outside the space."""
        if self.choices is not None:
            text = json.dumps(value)
            return text if text in [json.dumps(choice) for choice in self.choices] else None
        assert self.low is not None
        assert self.high is not None
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return value if number and self.low <= value <= self.high else None

    def _check(self) -> None:
        if self.choices is not None:
            if not isinstance(self.choices, list) or not self.choices or (self.low, self.high) != (None, None):
                raise ConfigurationError(f"tune.space: {self.name}: choices must be a list, and stand alone")
            return
        ends = (self.low, self.high)
        if not all(isinstance(end, int | float) and not isinstance(end, bool) for end in ends):
            raise ConfigurationError(
                f"tune.space: {self.name} needs both low and high, numbers; got {ends[0]!r}, {ends[1]!r}"
            )
        assert self.low is not None
        assert self.high is not None
        if self.low > self.high or (self.log and self.low <= 0) or (self.log and self.step):
            raise ConfigurationError(
                f"tune.space: {self.name}: low must not be above high; "
                "a logarithmic range starts above 0 and has no step"
            )


def read(given: Mapping[str, Any], architecture: str, defaults: Mapping[str, Mapping[str, Any]]) -> list[Option]:
    """The options of one architecture: those of ``all`` that its configuration has, and its own.

    Args:
        given: ``all`` and names of architectures -> setting -> range or choices.
        architecture: whose.
        defaults: ``model`` and ``training`` -> its configuration.

    Raises:
        ConfigurationError: a setting that the architecture does not have, or a range that is none.
    """
    found = {}
    for name, one in dict(given.get(COMMON) or {}).items():
        section, key = _split(name)
        if section == "training" or key in defaults[section]:
            found[name] = Option.read(name, one)
    for name, one in dict(given.get(architecture) or {}).items():
        section, key = _split(name)
        if section == "model" and key not in defaults["model"]:
            raise ConfigurationError(f"tune.space.{architecture}: {unknown_key(key, defaults['model'])}")
        found[name] = Option.read(name, one)
    if not found:
        raise ConfigurationError(f"tune.space names nothing that {architecture} has; see conf/base/parameters/tune.yml")
    return list(found.values())


def chosen(values: Mapping[str, Any], defaults: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """The configuration with these values in the place of the defaults."""
    configuration = {section: dict(defaults[section]) for section in SECTIONS}
    for name, value in values.items():
        section, key = _split(name)
        configuration[section][key] = value
    return configuration


def default(name: str, defaults: Mapping[str, Mapping[str, Any]]) -> Any:
    """What the configuration says of a setting, or what training does without it."""
    from ..training.config import TrainingConfig

    section, key = _split(name)
    if key in defaults[section] or section == "model":
        return defaults[section].get(key)
    return getattr(TrainingConfig(), key, None)


def _split(name: str) -> tuple[str, str]:
    section, _, key = name.partition(".")
    if section not in SECTIONS or not key:
        raise ConfigurationError(f"tune.space: '{name}' must be model.<option> or training.<option>")
    return section, key
