"""A comparison in MLflow: one run for the leaderboard, and nested in it one per model and seed."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from .. import tracking
from ..evaluation.report import largest
from ..schema import Variant
from .leaderboard import COSTS, GAP, MEASURES, measures
from .results import Result, by_label

logger = logging.getLogger(__name__)
DOMAINS = 50


def record(
    variant: Variant,
    *,
    results: Sequence[Result],
    leaderboard: pd.DataFrame,
    comparison: Mapping[str, Any],
    page: Path,
) -> dict[str, Any]:
    """Write the runs.

    Returns:
        ``run_id`` of the comparison and ``runs``: ``label, seed, run_id`` of each result.
    """
    import mlflow

    client = tracking.connect()
    experiment = tracking.experiment(client, f"multidomain-{variant.schema.name}")
    bases = {result.seed: result for result in by_label(results).get(str(comparison["base"]), [])}
    runs = []
    with mlflow.start_run(experiment_id=experiment, run_name=f"{variant.name}-compare") as parent:
        tags = {"git_revision": tracking.git_revision()}
        own = {**tags, "kind": "comparison"}
        tracking.write(client, parent.info.run_id, _summary(leaderboard), _about(variant, comparison), own)
        client.log_artifacts(parent.info.run_id, str(page))
        client.log_text(parent.info.run_id, leaderboard.to_csv(index=False), "leaderboard.csv")
        for result in results:
            name = f"{variant.name}-{result.label}-seed-{result.seed}"
            with mlflow.start_run(experiment_id=experiment, run_name=name, nested=True) as run:
                own = {**tags, "kind": "comparison result", "architecture": str(result.about["architecture"])}
                values = _values(result, bases.get(result.seed))
                tracking.write(client, run.info.run_id, values, _settings(variant, result), own)
                client.log_text(run.info.run_id, result.history().to_csv(index=False), "history.csv")
                client.log_dict(run.info.run_id, dict(result.metrics), "metrics.json")
                runs.append({"label": result.label, "seed": result.seed, "run_id": run.info.run_id})
    logger.info("recorded %d runs below %s in MLflow", len(runs), parent.info.run_name)
    return {"run_id": parent.info.run_id, "runs": runs}


def _summary(leaderboard: pd.DataFrame) -> Iterator[tracking.Value]:
    """Mean AUC … of each label."""
    for row in leaderboard.to_dict(orient="records"):
        for name in (*MEASURES, GAP):
            if math.isfinite(value := row.get(f"{name}_mean", math.nan)):
                yield (row["label"], name), value, 0


def _values(result: Result, base: Result | None) -> Iterator[tracking.Value]:
    """Metrics of the test split, overall and per domain, costs, and the history by epoch."""
    derived = {name: value for name, value in measures(result, base).items() if name in ("pcoc_range", "rela_impr")}
    overall = {f"test_{name}": value for name, value in result.metrics["overall"].items()}
    for name, value in {**overall, **derived, **{name: result.about[name] for name in COSTS}}.items():
        if value is not None and math.isfinite(value):
            yield (name,), float(value), 0
    for domain in largest(result.metrics, DOMAINS):
        for name, value in result.metrics["domains"][domain].items():
            if value is not None:
                yield ("domain", domain, name), float(value), 0
    for row in result.history().to_dict(orient="records"):
        step = int(row.pop("epoch"))
        for name, value in row.items():
            if math.isfinite(value):
                yield (str(name),), float(value), step


def _about(variant: Variant, comparison: Mapping[str, Any]) -> dict[str, Any]:
    chosen = {"dataset": variant.schema.name, "variant": variant.name, "base": comparison["base"]}
    return {**chosen, "models": ", ".join(comparison["entries"]), "tests": comparison["tests"]}


def _settings(variant: Variant, result: Result) -> dict[str, Any]:
    names = ("architecture", "model", "training", "seed", "data", "digest", "device", "threads", "revision")
    return {"dataset": variant.schema.name, "variant": variant.name, **{name: result.about[name] for name in names}}
