"""Views, leaks, and what requests are given against what training rows were given; stop where something is wrong."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import ConfigurationError
from ...options import require_numbers
from ...schema import Variant

if TYPE_CHECKING:
    import ibis.expr.types as ir

OPTIONS = {"moments": int, "rows": int, "seed": int, "leak_rows": int, "allowed": int, "allowed_score": float}
logger = logging.getLogger(__name__)


def check_views(variant: Variant, options: Mapping[str, Any]) -> dict[str, Any]:
    """The views that are registered and in the feature service.

    Raises:
        ConfigurationError: an option is none or not of its type.
        DataError: ``views``: one of the variant's is not, or lacks features.
    """
    require_numbers("check_parity", options, OPTIONS)
    from ...serving import checks

    return {"views": checks.require_views(variant)}


def check_leaks(
    variant: Variant,
    partitioned: ir.Table,
    items: ir.Table,
    feature_views: Path,
    training_frame: ir.Table,
    registered: Mapping[str, Any],
    options: Mapping[str, Any],
) -> dict[str, Any]:
    """Of ``leak_rows`` impressions, whether a feature counts more than had happened before; see ``features.leaks``.

    ``registered`` is asked for so that the views are checked first.

    Raises:
        DataError: ``leak``, naming view, feature and impression, what is found there and what is expected.
    """
    del registered
    from ...features import leaks
    from ...features.views import read_manifest
    from ...serving import checks

    prior = read_manifest(feature_views).get("prior", 0.0)
    found = leaks.measure(
        variant, partitioned, items, training_frame, prior=prior, rows=options["leak_rows"], seed=options["seed"]
    )
    lines = found.features.to_dict("records")
    if fewer := [line for line in lines if line["fewer"] and not line["more"]]:
        named = "; ".join(f"{line['feature']}: {line['fewer']:,}, {line['example']}" for line in fewer)
        logger.warning("of %d impressions some know less than had happened before: %s", found.rows, named)
    wrong = [line for line in lines if line["more"]]
    if wrong:
        raise checks.failed(
            "leak",
            variant,
            f"of {found.rows:,} impressions some know more than had happened before them:",
            [f"{line['view']}, {line['feature']}: {line['more']:,} impressions; {line['example']}" for line in wrong],
            "A row of a view is known from its event_timestamp on, at that very time too, so what is made of an "
            "impression is stamped after it: its instant + 1 microsecond (views of users), or the next midnight UTC "
            "(counts of days). Look at what stamps these views and at which rows they count, in "
            f"multidomain.features.views, then make views and training frame again: {checks.BUILD}.",
        )
    return {"rows": found.rows, "features": lines}


def measure_parity(
    variant: Variant,
    training_frame: ir.Table,
    architecture: str | None,
    version: int | str | None,
    options: Mapping[str, Any],
    registered: Mapping[str, Any] | None = None,
    leaks: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """What was compared, and per feature how many values are equal, differ or are missing; see ``serving.parity``.

    ``registered`` and ``leaks``, what the checks before found, are handed on in ``checks``.

    Raises:
        ConfigurationError: an option is none or not of its type, or there is no such model.
    """
    require_numbers("check_parity", options, OPTIONS)
    if architecture is None:
        raise ConfigurationError("check_parity compares the scores of a model, too: --params=architecture=star.")
    from ...packaging import registry
    from ...serving import parity

    name, number = registry.find(variant.key, architecture, version)
    scorer = registry.scorer(name, number)
    found = parity.measure(
        variant, training_frame, scorer, moments=options["moments"], rows=options["rows"], seed=options["seed"]
    )
    report = asdict(found) | {"features": found.features.to_dict("records"), "model": f"{name} version {number}"}
    checks = {"views": registered, "leak": leaks}
    return report | {"moments": [at.isoformat() for at in found.moments], "checks": checks}


def judge_parity(variant: Variant, parity: Mapping[str, Any], options: Mapping[str, Any]) -> None:
    """Stop when more differs than is allowed.

    Raises:
        DataError: ``skew``, naming the features, with an example of each, and what to do.
    """
    wrong = [line for line in parity["features"] if line["differing"] + line["missing"]]
    count = sum(line["differing"] + line["missing"] for line in wrong)
    apart = parity["score_difference"]
    if count <= options["allowed"] and apart <= options["allowed_score"]:
        return
    from ...serving import checks

    raise checks.failed(
        "skew",
        variant,
        f"{parity['rows']:,} impressions at {len(parity['moments'])} moments: {count:,} feature values are not the "
        f"same online as offline (allowed: {options['allowed']}), scores differ by up to {apart:.2g} "
        f"(allowed: {options['allowed_score']:g}).",
        [
            f"{line['feature']}: {line['differing']:,} differ, {line['missing']:,} missing on one side; "
            f"{line['example']}"
            for line in wrong
        ],
        "The online store was loaded for this check from the view tables, so it is how a feature is written, read or "
        "typed online that differs: look at multidomain.features.engine, at the online store in feature_store.yaml, "
        "and at what changed the view tables after the training frame was joined "
        f"({checks.BUILD} makes both again).",
    )
