"""From the view tables to the online store: what a request finds is what an impression at that time would have seen."""

from __future__ import annotations

import contextlib
import io
import logging
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any

from ..errors import ConfigurationError
from ..schema import Variant
from . import repository
from .times import EPOCH
from .views import View, views

if TYPE_CHECKING:
    from feast import FeatureStore

log = logging.getLogger(__name__)


def materialize(
    variant: Variant, *, until: datetime | None = None, full: bool = False, store: FeatureStore | None = None
) -> dict[str, Any]:
    """Load the latest row of every key up to a time into the online store; what is there already and newer stays.

    Each view goes on where its last success ended, which Feast's registry remembers; a profile, whose rows have no time
    of their own, is always loaded whole.

    Args:
        variant: registered before.
        until: the time; now, where none is given. One without a zone is UTC.
        full: load everything up to then, whatever was loaded before.
        store: another one than the variant's own.

    Returns:
        ``until``, and per view ``from``, ``to`` and whether anything was to be done (``loaded``).

    Raises:
        DataError: the variant was never registered.
        ConfigurationError: a time before 1970.
    """
    end = datetime.now(UTC) if until is None else until if until.tzinfo else until.replace(tzinfo=UTC)
    if end < EPOCH:
        raise ConfigurationError(f"materialize.until: {end} is before 1970, when the first features are known.")
    store = store or repository.service(variant)[0]
    done: dict[str, Any] = {}
    for view in views(variant):
        start = EPOCH if full or view.kind == "profile" else _last_success(store, view)
        loaded = start <= end
        if loaded:
            log.info("%s: from %s to %s", view.name, start, end)
            with contextlib.redirect_stdout(io.StringIO()):  # Feast prints, too
                store.materialize(start, end, feature_views=[view.name])
        else:
            log.info("%s: was loaded up to %s already, nothing to do", view.name, start)
        done[view.name] = {"from": start.isoformat(), "to": max(start, end).isoformat(), "loaded": loaded}
    return {"project": variant.project, "until": end.isoformat(), "views": done}


def _last_success(store: Any, view: View) -> datetime:
    found: datetime | None = store.get_feature_view(view.name).most_recent_end_time
    return found or EPOCH


def moment(name: str, given: Any) -> datetime | None:
    """An ISO time as text, or as YAML reads it; ``name`` is the parameter's.

    Raises:
        ConfigurationError: it is no time.
    """
    if given is None or isinstance(given, datetime):
        return given
    if isinstance(given, date):
        return datetime(given.year, given.month, given.day)
    try:
        return datetime.fromisoformat(str(given))
    except ValueError as error:
        raise ConfigurationError(f"{name} must be a time such as 2003-02-28T18:00:00 (UTC), got {given!r}") from error
