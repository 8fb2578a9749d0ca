"""Versions of a model that follow each other day by day: which knows the log up to when, and which was there before.

A version that was trained up to a day (``window.until``) carries that day as the tag ``until``, and as ``made_of`` a
digest of everything it was made from. So a day that is run again finds its version, and one that was missed is made
from the version of the day before it.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from datetime import date
from typing import TYPE_CHECKING, Any

from .. import tracking
from ..errors import ConfigurationError
from ..window import PREVIOUS as PREVIOUS
from ..window import Window

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from .package import Training

logger = logging.getLogger(__name__)
UNTIL, MADE_OF = "until", "made_of"  # tags of a version
RECORD = "package.json"  # of its run: what packaging returned


def previous(key: str, architecture: str, window: Window | None) -> tuple[str, str] | None:
    """Name and version of the newest model that knows no day from ``window.until`` on and passed the gate.

    Of several of one day the one registered last counts. None: there is none.

    Raises:
        ConfigurationError: no day is asked for.
    """
    if window is None or window.until is None:
        raise ConfigurationError(
            f"warm_start: {PREVIOUS} is the version of the days before, so the run's own day must be known. Set "
            "window.until, such as --params=window.until=2000-11-22, or name a version or an alias."
        )
    name, found = tracking.model_name(key, architecture), []
    for version in _versions(name):
        until = _until(version)
        if until is not None and until < window.until and version.tags.get("gate") == "passed":
            found.append((until, int(version.version)))
    return (name, str(max(found)[1])) if found else None


def started(key: str, architecture: str, warm_start: str | int | None, window: Window) -> str | None:
    """The version that a run of these days starts from, as ``name/version``; None where it starts otherwise."""
    if warm_start != PREVIOUS:
        return None
    found = previous(key, architecture, window)
    return None if found is None else "/".join(found)


def newer(champion: tuple[str, str] | None, until: date | None) -> str | None:
    """Why a model that knows the log up to ``until`` must not take the champion's place; None where it may try."""
    if champion is None or until is None:
        return None
    known = _until(tracking.connect().get_model_version(*champion))
    if known is None or known <= until:
        return None
    return (
        f"The champion, version {champion[1]}, knows the log up to {known}, this one only up to {until}: a day that is "
        "made later takes no newer one's place. Run the days after it again to have it count."
    )


def registered(training: Training) -> dict[str, Any] | None:
    """What packaging returned when a version was made of the very same; None where there is none, or no day."""
    if training.until is None:
        return None
    name = tracking.model_name(training.variant.key, training.architecture)
    made_of = _made_of(training)
    for version in _versions(name):
        if version.tags.get(MADE_OF) == made_of:
            logger.info(
                "%s version %s was made of the same up to %s: it stays, nothing is registered again",
                *(name, version.version, training.until),
            )
            record: dict[str, Any] = _artifact(version.run_id)
            return record
    return None


def keep(client: MlflowClient, training: Training, made: Mapping[str, Any]) -> None:
    """Note the day and what the version was made of; last of all, so that one cut short does not count as made."""
    if training.until is None:
        return
    client.log_dict(made["run_id"], dict(made), RECORD)
    for tag, value in ((UNTIL, training.until.isoformat()), (MADE_OF, _made_of(training))):
        client.set_model_version_tag(made["model"], str(made["version"]), tag, value)


def _made_of(training: Training) -> str:
    parts = [training.until, training.start, training.data, training.parameters, training.onnx]
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def _versions(name: str) -> list[Any]:
    return list(tracking.connect().search_model_versions(f"name='{name}'"))


def _until(version: Any) -> date | None:
    said = version.tags.get(UNTIL)
    return None if said is None else date.fromisoformat(said)


def _artifact(run: str) -> Any:
    import mlflow

    return mlflow.artifacts.load_dict(f"runs:/{run}/{RECORD}")
