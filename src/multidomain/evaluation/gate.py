"""Whether a new version may take the champion's place."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

from ..errors import ConfigurationError, unknown_key

if TYPE_CHECKING:
    from .intervals import Estimate


@dataclass(frozen=True, kw_only=True)
class Gate:
    """What a challenger has to show on the same test rows as the champion.

    Attributes:
        domain_loss: AUC that a large domain may lose.
        domain_rows: test rows that make a domain large.
        pcoc_low, pcoc_high: the band in which mean score over mean label must lie.
    """

    domain_loss: float = 0.005
    domain_rows: int = 5000
    pcoc_low: float = 0.9
    pcoc_high: float = 1.1

    def __post_init__(self) -> None:
        for one in fields(self):
            value = getattr(self, one.name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0:
                raise ConfigurationError(f"gate.{one.name} must be a number from 0 up, got {value!r}")
        if self.pcoc_low > self.pcoc_high:
            raise ConfigurationError(
                f"gate.pcoc_low ({self.pcoc_low:g}) must not be above pcoc_high ({self.pcoc_high:g})"
            )

    @classmethod
    def read(cls, given: Mapping[str, Any] | str | bool | None) -> Gate | None:
        """From the parameter ``gate``: settings, or ``off`` (which YAML reads as false): None.

        Raises:
            ConfigurationError: an unknown setting, or a value out of place.
        """
        if given is False or given == "off":
            return None
        if not isinstance(given, Mapping):
            raise ConfigurationError(f"gate must be settings or `off`, got {given!r}")
        allowed = [one.name for one in fields(cls)]
        for name in given:
            if name not in allowed:
                raise ConfigurationError(f"gate: {unknown_key(name, allowed)}")
        return cls(**given)


@dataclass(frozen=True)
class Decision:
    """What the gate says.

    Attributes:
        passed: the version may become champion.
        reasons: why not, one sentence each; or what to know of one that passed.
        figures: what was compared.
    """

    passed: bool
    reasons: tuple[str, ...] = ()
    figures: Mapping[str, float] = field(default_factory=dict)


def decide(
    gate: Gate,
    *,
    pcoc: float | None,
    overall: Mapping[str, Estimate],
    domains: Mapping[str, tuple[int, Estimate]],
) -> Decision:
    """Compare with the champion.

    Args:
        gate: the settings.
        pcoc: of the new version, overall.
        overall: ``auc`` and ``gauc`` of the new version minus the champion's, on the same rows.
        domains: name -> test rows, AUC of the new version minus the champion's.
    """
    reasons = [
        f"{name.upper()} is worse than the champion's by {-one.value:.4f}, beyond the 95 % interval "
        f"({one.low:+.4f} to {one.high:+.4f})."
        for name, one in overall.items()
        if name in ("auc", "gauc") and one.value < 0 and not one.high >= 0
    ]
    lost = {
        name: difference.value
        for name, (rows, difference) in domains.items()
        if rows >= gate.domain_rows and difference.value < -gate.domain_loss
    }
    reasons += [
        f"AUC of the domain '{name}' is {-value:.4f} below the champion's; a domain of {gate.domain_rows:,} test rows "
        f"or more may lose {gate.domain_loss:g}."
        for name, value in sorted(lost.items(), key=lambda item: item[1])
    ]
    reasons += outside(gate, pcoc)
    figures = {f"{name}_difference": one.value for name, one in overall.items() if not math.isnan(one.value)}
    return Decision(not reasons, tuple(reasons), figures)


def outside(gate: Gate, pcoc: float | None) -> list[str]:
    """A sentence when PCOC is out of its band."""
    if pcoc is not None and gate.pcoc_low <= pcoc <= gate.pcoc_high:
        return []
    found = "undefined" if pcoc is None else f"{pcoc:.4f}"
    return [f"PCOC is {found}; it must lie from {gate.pcoc_low:g} to {gate.pcoc_high:g}."]
