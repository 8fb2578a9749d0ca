"""Hand a training over to MLflow."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from ...errors import DataError
from ...evaluation.gate import Gate
from ...schema import Variant
from ...window import Window
from ..evaluate.account import scored_rows, tested

if TYPE_CHECKING:
    import ibis.expr.types as ir
    import pandas as pd

    from ...evaluation.account import Rows
    from ...evaluation.gate import Decision

CHECKED = 1000  # rows of the test split that the packaged model must score as the run did


def package(
    variant: Variant,
    encoder: Path,
    encoded: Path,
    training_frame: ir.Table,
    model: Path,
    history: pd.DataFrame,
    predictions: ir.Table,
    metrics: dict[str, Any],
    plots: Path,
    insights: Path,
    architecture: str,
    configuration: dict[str, Any],
    training: dict[str, Any],
    seed: int,
    reference: ir.Table | None = None,
    calibration: dict[str, Any] | None = None,
    account: dict[str, Any] | None = None,
    cost: dict[str, Any] | None = None,
    gate: Mapping[str, Any] | str | bool = MappingProxyType({}),
    options: dict[str, Any] | None = None,
    warm_start: str | int | None = None,
    window: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """One MLflow run with parameters, metrics, pictures, data fingerprint and git revision, and a registered model.

    With ``options`` ``{"onnx": true}`` the package also holds the network as an ONNX file.

    The first version of a model becomes its champion; a later one takes its place if the gate lets it, and is its
    challenger otherwise. One that knows the log up to a day (``window.until``) does not take the place of one that
    knows a later day, and is registered once: when the day is run again with the same settings, data and start, the
    version that is there stays.

    Returns:
        ``run_id, model, version, uri, alias, path``, ``checks``: how far the packaged model's scores of rows as the
        feature stage delivers them are from the run's predictions, and ``gate``: whether it passed, why not, figures.

    Raises:
        ConfigurationError: an option that does not exist, or no ONNX file can be made.
        DataError: they are farther apart than rounding explains, or the tables do not hold the same impressions.
    """
    from ...packaging.days import registered, started
    from ...packaging.options import PackageOptions
    from ...packaging.package import Training
    from ...packaging.package import package as register
    from ...schema import SPLITS
    from ...tensors import EncodedSplit, fingerprint

    settings, chosen, days = Gate.read(gate), PackageOptions.of(options), Window.read(window)
    rows = check_rows(training_frame, predictions)
    trained = Training(
        variant=variant,
        architecture=architecture,
        parameters={
            "architecture": architecture,
            "dataset": variant.schema.name,
            "domain": variant.domain.name,
            "split": variant.split.name,
            "features": variant.feature_set.name,
            "label": variant.label.name,
            "seed": seed,
            "calibration": (calibration or {}).get("kind"),
            "model": configuration,
            "training": training,
            **({} if days.until is None else {"window": dict(window or {}), "warm_start": warm_start}),
        },
        metrics=metrics,
        history=history,
        encoder=encoder,
        model=model,
        plots=plots,
        insights=insights,
        data=fingerprint(encoded),
        rows={split: len(EncodedSplit(encoded, split)) for split in SPLITS},
        onnx=chosen.onnx,
        calibration=calibration or {},
        reports={name: given for name, given in {"account": account, "cost": cost}.items() if given},
        until=days.until,
        start=started(variant.key, architecture, warm_start, days),
    )
    if (there := registered(trained)) is not None:
        return there
    decision = judge(variant, architecture, training_frame, predictions, reference, metrics, settings, days)
    return register(trained, rows.drop(columns="score"), rows["score"].to_numpy(), decision)


def judge(
    variant: Variant,
    architecture: str,
    training_frame: ir.Table,
    predictions: ir.Table,
    reference: ir.Table | None,
    metrics: dict[str, Any],
    gate: Gate | None,
    window: Window | None = None,
) -> Decision:
    """Whether this training may take the champion's place, by both models' scores of the same test rows.

    Args:
        variant, architecture: whose champion.
        training_frame: rows as the feature stage delivers them.
        predictions: of the new model.
        reference: scores of the model that the report compares with; used when that is the champion of now.
        metrics: of the new model.
        gate: None: off.
        window: the days the new model knows.
    """
    from ...evaluation.gate import Decision, decide, outside
    from ...packaging import champion, days

    current = champion.current(variant.key, architecture)
    newer = days.newer(current, window.until if window else None)
    if newer is not None:
        return Decision(False, (newer,))
    if gate is None:
        return Decision(True, ("The quality gate is off (--params=gate=off): nothing was compared.",))
    pcoc = metrics["overall"]["pcoc"]
    if current is None:
        return Decision(True, tuple(f"First version: nothing to compare with. {said}" for said in outside(gate, pcoc)))
    try:
        scored = _champion_scores(current, training_frame, reference)
        rows = scored_rows(training_frame, predictions, scored)
    except DataError as error:
        return Decision(False, (f"It could not be compared with the champion: {error}",))
    return decide(gate, pcoc=pcoc, **differences(rows, gate.domain_rows))


def _champion_scores(current: tuple[str, str], training_frame: ir.Table, reference: ir.Table | None) -> ir.Table:
    """The reference if that is the champion, else the champion's scores made now."""
    import ibis

    from ...packaging import champion

    if reference is not None:
        names = reference.model.topk(1).to_pandas()["model"].tolist()
        if names == ["/".join(current)]:
            return reference
    return ibis.memtable(champion.scores(*current, tested(training_frame)))


def differences(rows: Rows, large: int) -> dict[str, Any]:
    """Of all rows, and of the domains with at least so many."""
    import numpy as np

    from ...evaluation.intervals import of_difference
    from ...evaluation.report import domain_codes

    assert rows.reference is not None
    columns = (rows.label, rows.score, rows.reference, rows.group, rows.user)
    code, names = domain_codes(rows.domain)
    domains = {}
    for number, name in enumerate(names):
        at = np.flatnonzero(code == number)
        if len(at) >= large:
            domains[name] = (len(at), of_difference(*(column[at] for column in columns))["auc"])
    return {"overall": of_difference(*columns), "domains": domains}


def check_rows(training_frame: ir.Table, predictions: ir.Table, count: int = CHECKED) -> pd.DataFrame:
    """At most ``count`` test rows, spread evenly, as the feature stage delivers them, and their ``score``."""
    import numpy as np

    scored = predictions.select("impression_id", "score").to_pandas()
    scored = scored.iloc[np.unique(np.linspace(0, len(scored) - 1, min(count, len(scored))).astype(int))]
    wanted = training_frame.impression_id.isin(scored["impression_id"].tolist())
    rows = training_frame.filter((training_frame.split == "test") & wanted).to_pandas()
    joined = rows.merge(scored, on="impression_id", validate="one_to_one")
    if len(joined) != len(scored):
        raise DataError(
            f"The features hold {len(joined):,} of {len(scored):,} impressions that were predicted: they were made "
            "again since. Train again, or run the whole pipeline with --only-missing-outputs."
        )
    return joined
