"""Compare what requests are given with what training rows were given; stop when they differ."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from ...errors import ConfigurationError, DataError, unknown_key
from ...schema import Variant

if TYPE_CHECKING:
    import ibis.expr.types as ir

OPTIONS = {"moments": int, "rows": int, "seed": int, "allowed": int, "allowed_score": float}


def measure_parity(
    variant: Variant,
    training_frame: ir.Table,
    architecture: str | None,
    version: int | str | None,
    options: Mapping[str, Any],
) -> dict[str, Any]:
    """What was compared, and per feature how many values are equal, differ or are missing; see ``serving.parity``.

    Raises:
        ConfigurationError: an option is none or not of its type, or there is no such model.
    """
    _check(options)
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
    return report | {"moments": [at.isoformat() for at in found.moments]}


def judge_parity(variant: Variant, parity: Mapping[str, Any], options: Mapping[str, Any]) -> None:
    """Stop when more differs than is allowed.

    Raises:
        DataError: naming the features, with an example of each, and what to do.
    """
    wrong = [line for line in parity["features"] if line["differing"] + line["missing"]]
    count = sum(line["differing"] + line["missing"] for line in wrong)
    apart = parity["score_difference"]
    if count <= options["allowed"] and apart <= options["allowed_score"]:
        return
    lines = [
        f"  {line['feature']}: {line['differing']:,} differ, {line['missing']:,} missing on one side; {line['example']}"
        for line in wrong
    ]
    raise DataError(
        f"{variant.key}: {parity['rows']:,} impressions at {len(parity['moments'])} moments: {count:,} feature values "
        f"are not the same online as offline (allowed: {options['allowed']}), scores differ by up to {apart:.2g} "
        f"(allowed: {options['allowed_score']:g}).\n"
        + "\n".join(lines)
        + "\nThe online store was loaded for this check "
        "from the view tables, so it is how a feature is written, read or typed online that differs: look at "
        "multidomain.features.engine, at the online store in feature_store.yaml, and at what changed the view tables "
        "after the training frame was joined (kedro run --pipeline=features makes both again)."
    )


def _check(options: Mapping[str, Any]) -> None:
    for name, value in options.items():
        if name not in OPTIONS:
            raise ConfigurationError(f"check_parity: {unknown_key(name, OPTIONS)}")
        whole = OPTIONS[name] is int
        if isinstance(value, bool) or not isinstance(value, int if whole else int | float) or value < 0:
            kind = "a whole number" if whole else "a number"
            raise ConfigurationError(f"check_parity.{name} must be {kind} from 0 up, got {value!r}")
