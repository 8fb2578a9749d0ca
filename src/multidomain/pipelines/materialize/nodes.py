"""Load the online store up to a time."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime
from typing import Any

from ...errors import ConfigurationError, unknown_key
from ...features.materialize import materialize
from ...schema import Variant

OPTIONS = ("until", "full")


def load_online_store(
    variant: Variant, feature_repository: dict[str, Any], options: Mapping[str, Any]
) -> dict[str, Any]:
    """What was loaded, per view; see :mod:`multidomain.features.materialize`.

    Args:
        variant: its features are loaded.
        feature_repository: asked for so that registration comes first.
        options: ``until``, a time, and ``full``, whether to load everything up to then again.

    Raises:
        ConfigurationError: an option is none or not of its type.
    """
    del feature_repository
    for name in options:
        if name not in OPTIONS:
            raise ConfigurationError(f"materialize: {unknown_key(name, OPTIONS)}")
    full = options["full"]
    if not isinstance(full, bool):
        raise ConfigurationError(f"materialize.full must be true or false, got {full!r}")
    return materialize(variant, until=_time(options["until"]), full=full)


def _time(given: Any) -> datetime | None:
    """An ISO time as text, or as YAML reads it."""
    if given is None or isinstance(given, datetime):
        return given
    if isinstance(given, date):
        return datetime(given.year, given.month, given.day)
    try:
        return datetime.fromisoformat(str(given))
    except ValueError as error:
        raise ConfigurationError(
            f"materialize.until must be a time such as 2003-02-28T18:00:00 (UTC), got {given!r}"
        ) from error
