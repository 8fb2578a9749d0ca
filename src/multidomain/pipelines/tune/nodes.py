"""Search for a configuration on the validation split; the test split is not looked at."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...schema import Variant

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)
Writer = Callable[[Path], None]


def tune(
    encoded: Path,
    studies: Path,
    architecture: str,
    model: dict[str, Any],
    training: dict[str, Any],
    tune: dict[str, Any],
    seed: int,
    device: str | None,
) -> tuple[pd.DataFrame, Writer]:
    """Go through the search space until the budget is used up; go on with the study that is there.

    Args:
        encoded: the variant's tensors.
        studies: where study and checkpoints are kept.
        architecture: what is tuned.
        model, training: as configured: the first trial, as far as the space holds it.
        tune: ``trials``, ``minutes``, ``space``.
        seed: of the sampler, and of every training.
        device: to train on.

    Returns:
        the trials, and what writes the best configuration as ``<architecture>.yml`` with a picture of the search.

    Raises:
        ConfigurationError: the space or the budget is none.
    """
    from ...tensors import fingerprint
    from ...tuning import space
    from ...tuning import study as studying

    defaults = {"model": model, "training": training}
    options = space.read(tune.get("space") or {}, architecture, defaults)
    study = studying.run(
        trainer(encoded, architecture, seed, device),
        architecture=architecture,
        options=options,
        defaults=defaults,
        budget=studying.Budget.read(tune),
        data=fingerprint(encoded),
        seed=seed,
        folder=studies,
    )
    best = studying.configuration(study.best_trial, options, defaults)
    table = studying.table(study)
    header = _header(architecture, study.best_trial.number, study.best_value, table)
    logger.info("%s", header[0])

    def write(folder: Path) -> None:
        from ...evaluation.plots import save
        from ...tuning.picture import course

        save(course(table), folder / "course.png")
        (folder / f"{architecture}.yml").write_text(_conf_file(architecture, best, header), encoding="utf-8")

    return table, write


def trainer(encoded: Path, architecture: str, seed: int, device: str | None) -> Any:
    """What trains one configuration, by the functions of ``train_<architecture>``."""
    import torch

    from ...models import build
    from ...tensors import EncodedSplit
    from ...training.config import TrainingConfig
    from ...training.loop import fit

    rows, validation = EncodedSplit(encoded, "train"), EncodedSplit(encoded, "validation")

    def train(configuration: Mapping[str, Any], checkpoints: Path, report: Any) -> list[dict[str, float]]:
        settings = TrainingConfig(**configuration["training"])
        torch.manual_seed(seed)
        network = build(architecture, rows.inputs, **configuration["model"])
        result = fit(
            network,
            rows,
            validation,
            settings,
            seed=seed,
            checkpoints=checkpoints,
            device=device,
            architecture=configuration["model"],
            after_epoch=report,
        )
        return result.history

    return train


def track(variant: Variant, architecture: str, trials: pd.DataFrame, tuned: Path) -> dict[str, Any]:
    """One MLflow run for the search, and nested in it one per trial."""
    import mlflow

    from ... import tracking

    client = tracking.connect()
    experiment = tracking.experiment(client, f"multidomain-{variant.schema.name}")
    tags = {"git_revision": tracking.git_revision(), "architecture": architecture, "variant": variant.name}
    measured = ("validation_auc", "epochs", "seconds")
    runs = []
    with mlflow.start_run(experiment_id=experiment, run_name=f"{variant.name}-{architecture}-tune") as parent:
        best = float(trials["validation_auc"].max())
        own = {**tags, "kind": "tuning"}
        tracking.write(client, parent.info.run_id, [(("validation_auc",), best, 0)], {"trials": len(trials)}, own)
        client.log_artifacts(parent.info.run_id, str(tuned))
        for row in trials.to_dict(orient="records"):
            number, state = row.pop("trial"), row.pop("state")
            values = [((name,), float(row.pop(name)), 0) for name in measured if name in row]
            values = [value for value in values if math.isfinite(value[1])]
            name = f"{variant.name}-{architecture}-trial-{number}"
            with mlflow.start_run(experiment_id=experiment, run_name=name, nested=True) as run:
                tracking.write(client, run.info.run_id, values, row, {**tags, "kind": "trial", "state": state})
                runs.append({"trial": number, "run_id": run.info.run_id})
    return {"run_id": parent.info.run_id, "runs": runs}


def _header(architecture: str, number: int, best: float, table: pd.DataFrame) -> list[str]:
    first = float(table.sort_values("trial")["validation_auc"].iloc[0])
    return [
        f"{architecture}: validation AUC {best:.4f} in trial {number} of {len(table)}; in the first {first:.4f}.",
        f"To use it, copy this file to conf/local/parameters/models/{architecture}.yml.",
    ]


def _conf_file(architecture: str, best: Mapping[str, Any], header: list[str]) -> str:
    import yaml

    lines = "".join(f"# {line}\n" for line in header)
    return lines + yaml.safe_dump({architecture: dict(best)}, sort_keys=False, default_flow_style=None)
