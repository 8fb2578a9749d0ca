"""Trials of one architecture, kept in a SQLite study that a later run goes on with."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ConfigurationError
from ..options import require_numbers
from ..training.guard import TrainingError
from . import space

if TYPE_CHECKING:
    import optuna
    import pandas as pd

logger = logging.getLogger(__name__)
FILE = "study.db"
WARM_UP = 5  # trials that are never stopped early
Report = Callable[[Mapping[str, float]], None]
Train = Callable[[Mapping[str, Mapping[str, Any]], Path, Report], "list[dict[str, float]]"]


@dataclass(frozen=True, kw_only=True)
class Budget:
    """When to stop.

    Attributes:
        trials: in the study, those of earlier runs included.
        minutes: of this run; None: as long as it takes. A trial that has begun is ended.
    """

    trials: int = 20
    minutes: float | None = None

    @classmethod
    def read(cls, given: Mapping[str, Any]) -> Budget:
        """From the section ``tune``.

        Raises:
            ConfigurationError: an unknown key or no number.
        """
        numbers = {name: value for name, value in given.items() if value is not None}
        require_numbers("tune", numbers, {"trials": int, "minutes": float, "space": None}, least={"trials": 1})
        return cls(**{name: value for name, value in numbers.items() if name != "space"})


def run(
    train: Train,
    *,
    architecture: str,
    options: Sequence[space.Option],
    defaults: Mapping[str, Mapping[str, Any]],
    budget: Budget,
    data: str,
    seed: int,
    folder: Path,
) -> optuna.Study:
    """Go through the space with TPE until the budget is used up; trials behind the median of the others are stopped.

    The configuration as it is comes first, so that the best is never worse than it, unless the space does not hold it,
    which is said. A trial that was interrupted is tried again and goes on from its checkpoint. One process at a time.

    Args:
        train: (configuration, folder for checkpoints, what to call after each epoch) -> history.
        architecture: part of the study's name, as are the options, the defaults, data and seed: change one, and another
            study begins.
        options: the space.
        defaults: ``model`` and ``training`` as configured.
        budget: when to stop.
        data: a fingerprint.
        seed: of the sampler.
        folder: for study and checkpoints.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    folder.mkdir(parents=True, exist_ok=True)
    study = optuna.create_study(
        study_name=f"{architecture}-{_digest([str(option) for option in options], defaults, data, seed)}",
        storage=f"sqlite:///{folder / FILE}",
        sampler=optuna.samplers.TPESampler(seed=seed, n_startup_trials=WARM_UP),
        pruner=optuna.pruners.MedianPruner(n_startup_trials=WARM_UP, n_warmup_steps=0),
        direction="maximize",
        load_if_exists=True,
    )
    _begin(study, options, defaults)
    until = None if budget.minutes is None else time.monotonic() + 60 * budget.minutes
    while len(ended(study)) < budget.trials and (until is None or time.monotonic() < until):
        _one(study, train, options, defaults, folder, budget.trials)
    return study


def ended(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    """The trials that came to an end or were stopped early, not those that were interrupted or failed."""
    from optuna.trial import TrialState

    return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))


def configuration(
    trial: optuna.trial.FrozenTrial, options: Sequence[space.Option], defaults: Mapping[str, Mapping[str, Any]]
) -> dict[str, dict[str, Any]]:
    """What a trial trained with."""
    values = {
        option.name: json.loads(trial.params[option.name]) if option.choices is not None else trial.params[option.name]
        for option in options
        if option.name in trial.params
    }
    return space.chosen(values, defaults)


def table(study: optuna.Study) -> pd.DataFrame:
    """One row per ended trial: ``trial, state, validation_auc, epochs, seconds`` and its settings."""
    import pandas as pd

    rows = []
    for trial in ended(study):
        scores = trial.intermediate_values
        seconds = trial.duration.total_seconds() if trial.duration else None
        about = {
            "trial": trial.number,
            "state": trial.state.name.lower(),
            "validation_auc": max(scores.values(), default=None),
        }
        rows.append(about | {"epochs": len(scores), "seconds": seconds} | trial.params)
    return pd.DataFrame(rows)


def _one(
    study: optuna.Study,
    train: Train,
    options: Sequence[space.Option],
    defaults: Mapping[str, Mapping[str, Any]],
    folder: Path,
    trials: int,
) -> None:
    import optuna

    trial = study.ask()
    values = {option.name: option.suggest(trial) for option in options}
    logger.info("trial %d of %d: %s", len(ended(study)) + 1, trials, json.dumps(values))
    place = folder / f"trial-{_digest(values)}"

    def report(numbers: Mapping[str, float]) -> None:
        trial.report(numbers["validation_auc"], int(numbers["epoch"]))
        if trial.should_prune():
            raise optuna.TrialPruned

    try:
        history = train(space.chosen(values, defaults), place, report)
    except optuna.TrialPruned:
        study.tell(trial, state=optuna.trial.TrialState.PRUNED)
        logger.info("stopped: behind the median of the trials so far")
    except (ConfigurationError, TrainingError, ValueError) as error:  # a combination that cannot be, or diverges
        trial.set_user_attr("error", str(error))
        study.tell(trial, state=optuna.trial.TrialState.PRUNED)
        logger.warning("not possible: %s", error)
    else:
        study.tell(trial, max(row["validation_auc"] for row in history))
        best, own = study.best_trial, study.trials[trial.number]
        logger.info("validation AUC %.4f; best so far %.4f (trial %d)", own.value, best.value, best.number)
    shutil.rmtree(place, ignore_errors=True)


def _begin(study: optuna.Study, options: Sequence[space.Option], defaults: Mapping[str, Mapping[str, Any]]) -> None:
    """Put first what is configured, and again what was interrupted."""
    from optuna.trial import TrialState

    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        study.tell(trial.number, state=TrialState.FAIL)
        if trial.params:
            study.enqueue_trial(dict(trial.params))
            logger.info("trial %d was interrupted: it is tried again", trial.number)
    if not study.get_trials(deepcopy=False):
        found = {option.name: option.stored(space.default(option.name, defaults)) for option in options}
        outside = [name for name, value in found.items() if value is None]
        if outside:
            logger.warning(
                "the space does not hold what is configured of %s: the first trial draws it", ", ".join(outside)
            )
        study.enqueue_trial({name: value for name, value in found.items() if value is not None})


def _digest(*parts: Any) -> str:
    return hashlib.blake2b(json.dumps(parts, sort_keys=True, default=str).encode(), digest_size=6).hexdigest()
