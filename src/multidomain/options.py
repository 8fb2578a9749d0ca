"""Options of a pipeline that are numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .errors import ConfigurationError, unknown_key


def require_numbers(
    section: str, given: Mapping[str, Any], kinds: Mapping[str, type | None], *, least: Mapping[str, int] | None = None
) -> None:
    """Hold each option to its kind, ``int`` or ``float``, and to its smallest value, 0 where ``least`` names none.

    ``None`` as a kind: the option is known, and looked at by somebody else.

    Raises:
        ConfigurationError: an option is unknown, no number of its kind, or too small.
    """
    for name, value in given.items():
        if name not in kinds:
            raise ConfigurationError(f"{section}: {unknown_key(name, kinds)}")
        if kinds[name] is None:
            continue
        whole, low = kinds[name] is int, (least or {}).get(name, 0)
        if isinstance(value, bool) or not isinstance(value, int if whole else int | float) or value < low:
            kind = "a whole number" if whole else "a number"
            raise ConfigurationError(f"{section}.{name} must be {kind} from {low} up, got {value!r}")
