"""Load the online store up to a time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...errors import ConfigurationError, unknown_key
from ...features.materialize import materialize, moment
from ...schema import Variant
from ...window import Window

OPTIONS = ("until", "full")


def load_online_store(
    variant: Variant,
    feature_repository: dict[str, Any],
    options: Mapping[str, Any],
    window: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """What was loaded, per view; see :mod:`multidomain.features.materialize`.

    Args:
        variant: its features are loaded.
        feature_repository: asked for so that registration comes first.
        options: ``until``, a time, and ``full``, whether to load everything up to then again.
        window: where ``until`` is not given, the end of its last day takes its place.

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
    until = moment("materialize.until", options["until"]) or Window.read(window).end
    return materialize(variant, until=until, full=full)
