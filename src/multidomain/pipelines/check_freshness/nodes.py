"""Look at the online store as it is; stop when it is stale or holds something else than the view tables."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import DataError
from ...features.materialize import moment
from ...options import require_numbers
from ...schema import Variant

if TYPE_CHECKING:
    import ibis.expr.types as ir

logger = logging.getLogger(__name__)
NOW = "now"
OPTIONS = {
    "at": None,
    "rows": int,
    "seed": int,
    "max_age_hours": float,
    "max_absent": float,
    "max_behind": float,
    "max_differing": int,
}


def measure_freshness(
    variant: Variant, feature_views: Path, training_frame: ir.Table, options: Mapping[str, Any]
) -> dict[str, Any]:
    """Age, absent and late keys of each view online, and drift of each feature; see ``serving.freshness``.

    Raises:
        ConfigurationError: an option is none or not of its type.
        DataError: ``views``: a view is not registered with Feast, or not in its service.
    """
    at = _check(options)
    from ...evaluation import drift
    from ...features import repository
    from ...serving import checks, freshness

    checks.require_views(variant)
    found = freshness.measure(variant, training_frame, feature_views, at=at, rows=options["rows"], seed=options["seed"])
    moved = found.features[(found.features.psi > drift.SIGNIFICANT) & (found.features.psi > found.features.chance)]
    for comparison, lines in moved.groupby("comparison"):  # counts grow: against the frame that is to be expected
        level = logging.WARNING if comparison == freshness.AGAINST_TABLES else logging.INFO
        named = ", ".join(f"{name} ({psi:.2f})" for name, psi in zip(lines.feature, lines.psi, strict=True))
        logger.log(level, "%s, PSI above %s: %s", comparison, drift.SIGNIFICANT, named)
    return {
        "at": None if found.at is None else found.at.isoformat(),
        "rows": found.rows,
        "split": found.split,
        "store": repository.online_place(variant),
        "views": json.loads(found.views.to_json(orient="records")),
        "features": json.loads(found.features.to_json(orient="records")),
    }


def draw_freshness(
    variant: Variant, freshness: Mapping[str, Any], options: Mapping[str, Any]
) -> Callable[[Path], None]:
    """A writer of the folder with tables, pictures and the page."""
    from ...serving import freshness_report

    def write(folder: Path) -> None:
        title = f"What is online of {variant.key}"
        freshness_report.write(folder, freshness, title=title, limit=options["max_age_hours"])

    return write


def record_freshness(variant: Variant, freshness: Mapping[str, Any], page: Path) -> dict[str, Any]:
    """Metrics and the page as a run in MLflow; ``run_id``."""
    from ...serving import freshness_report

    return {"run_id": freshness_report.record(variant, freshness, page)}


def judge_freshness(
    variant: Variant, freshness: Mapping[str, Any], freshness_run: Mapping[str, Any], options: Mapping[str, Any]
) -> None:
    """Stop when a view is too old online, keys are absent or behind, or values differ, beyond what is allowed.

    ``freshness_run`` is asked for so that everything is recorded first.

    Raises:
        DataError: ``stale`` or ``skew``, or both, naming the views, with figures and what to do.
    """
    del freshness_run
    errors = [error for error in (_stale(variant, freshness, options), _skew(variant, freshness, options)) if error]
    if errors:
        raise DataError("\n".join(error.message for error in errors))


def _stale(variant: Variant, freshness: Mapping[str, Any], options: Mapping[str, Any]) -> DataError | None:
    from ...serving import checks

    against = freshness["at"] or "the newest row of its table"
    lines, late, passed_by = [], False, False
    for view in freshness["views"]:
        if not (said := _said(view, against, options)):
            continue
        lines.append(f"{view['view']}: {'; '.join(said)}")
        loaded, newest = view["loaded"], view["offline"]
        late |= view["absent"] + view["behind"] > 0 or view["online"] != newest
        passed_by |= None not in (loaded, newest) and _moment(loaded) >= _moment(newest)
    if not lines:
        return None
    if not late:
        advice = (
            "Everything the view tables hold is online, so it is the log that has nothing newer: bring it up to date, "
            f"then kedro run --pipeline=prepare, then {checks.LOAD}."
        )
    elif passed_by:
        advice = (
            "The registry says that views were loaded up to there, so a load that goes on from the last one passes "
            f"what is lacking by. Load everything: {checks.LOAD_ALL}."
        )
    else:
        advice = f"Load what has come since: {checks.LOAD}."
    return checks.failed("stale", variant, f"the online store ({freshness['store']}) is out of date:", lines, advice)


def _said(view: Mapping[str, Any], against: str, options: Mapping[str, Any]) -> list[str]:
    """What is wrong with one view."""
    said = []
    if view["age_hours"] is not None and view["age_hours"] > options["max_age_hours"]:
        age, allowed = f"{view['age_hours']:,.1f} hours", f"{options['max_age_hours']:g}"
        said.append(f"its newest value is of {view['online']}, {age} before {against} (allowed: {allowed})")
    elif view["online"] is None and view["offline"] is not None:
        said.append("nothing that its table holds is online")
    for name, words in (("absent", "are absent"), ("behind", "have an older value than the table")):
        count, allowed = view[name], options[f"max_{name}"]
        if count > allowed * view["keys"]:
            said.append(f"{count:,} of {view['keys']:,} keys {words} (allowed: {allowed:.4g} of them)")
    if said and view["loaded"] is None:
        said.append("it was never loaded")
    return said


def _skew(variant: Variant, freshness: Mapping[str, Any], options: Mapping[str, Any]) -> DataError | None:
    from ...serving import checks

    wrong = [view for view in freshness["views"] if view["differing"] > options["max_differing"]]
    if not wrong:
        return None
    return checks.failed(
        "skew",
        variant,
        f"values online ({freshness['store']}) are not those that the view tables hold for the same key and time "
        f"(allowed: {options['max_differing']} per view):",
        [f"{view['view']}: {view['differing']:,} values differ; {view['example']}" for view in wrong],
        "The tables were made again after they were loaded, or something else writes to the store. Load everything "
        f"again: {checks.LOAD_ALL} (Redis keeps what it has of the same time: remove the project's keys there first). "
        "If that does not help, it is how a feature is written, read or typed online that differs: kedro run "
        "--pipeline=check_parity.",
    )


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _check(options: Mapping[str, Any]) -> datetime | None:
    """The time that ages are measured against; None for none."""
    require_numbers("check_freshness", options, OPTIONS, least={"rows": 1})
    if options["at"] == NOW:
        return datetime.now(UTC)
    return moment("check_freshness.at", options["at"])
