"""Hand a training over to MLflow."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import DataError
from ...schema import Variant

if TYPE_CHECKING:
    import ibis.expr.types as ir
    import pandas as pd

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
) -> dict[str, Any]:
    """One MLflow run with parameters, metrics, pictures, data fingerprint and git revision, and a registered model.

    The first version of a model becomes its champion, later ones its challenger.

    Returns:
        ``run_id, model, version, uri, alias, path`` and ``checks``: how far the packaged model's scores of rows as the
        feature stage delivers them are from the run's predictions.

    Raises:
        DataError: they are farther apart than rounding explains, or the tables do not hold the same impressions.
    """
    from ...packaging.package import Training
    from ...packaging.package import package as register
    from ...tensors import fingerprint

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
            "model": configuration,
            "training": training,
        },
        metrics=metrics,
        history=history,
        encoder=encoder,
        model=model,
        plots=plots,
        insights=insights,
        data=fingerprint(encoded),
    )
    return register(trained, rows.drop(columns="score"), rows["score"].to_numpy())


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
