"""Searches that end, that are interrupted and go on; with trainings of a small model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml
from learnable import write_encoded

from multidomain.errors import ConfigurationError
from multidomain.models import build
from multidomain.pipelines.tune.nodes import track, trainer, tune
from multidomain.tensors import EncodedSplit
from multidomain.training.guard import TrainingError
from multidomain.tuning import space, study

OPTIONS = [space.Option(name="training.learning_rate", low=0.001, high=0.1, log=True)]
DEFAULTS: dict[str, dict[str, Any]] = {"model": {}, "training": {"learning_rate": 0.03, "epochs": 3}}


def search(train: Any, folder: Path, trials: int, **changed: Any) -> optuna.Study:
    given = {"architecture": "star", "options": OPTIONS, "defaults": DEFAULTS, "data": "d", "seed": 1, "folder": folder}
    return study.run(train, budget=study.Budget(trials=trials), **{**given, **changed})


class Quadratic:
    """Trains nothing: the score is highest at a learning rate of 0.01."""

    def __init__(self, *, stops_at: int | None = None) -> None:
        self.seen: list[float] = []
        self.stops_at = stops_at

    def __call__(self, configuration: Mapping[str, Any], checkpoints: Path, report: Any) -> list[dict[str, float]]:
        rate = configuration["training"]["learning_rate"]
        self.seen.append(rate)
        history = []
        for epoch in (1, 2, 3):
            if self.stops_at == len(self.seen) and epoch == 2:
                raise KeyboardInterrupt
            history.append({"epoch": epoch, "validation_auc": 1 - abs(rate - 0.01) + 0.001 * epoch})
            report(history[-1])
        return history


def test_the_configuration_as_it_is_comes_first_and_the_best_is_no_worse(tmp_path: Path) -> None:
    train = Quadratic()
    found = search(train, tmp_path, 12)
    assert train.seen[0] == 0.03
    assert len(study.ended(found)) == 12
    assert found.best_value >= 1 - abs(0.03 - 0.01) + 0.003
    assert any(trial.state is optuna.trial.TrialState.PRUNED for trial in found.trials)
    best = study.configuration(found.best_trial, OPTIONS, DEFAULTS)
    assert best["training"] == {"learning_rate": pytest.approx(0.01, abs=0.02), "epochs": 3}
    table = study.table(found)
    assert len(table) == 12
    assert table["validation_auc"].max() == found.best_value


def test_an_interrupted_search_goes_on_without_losing_a_trial(tmp_path: Path) -> None:
    first = Quadratic(stops_at=4)
    with pytest.raises(KeyboardInterrupt):
        search(first, tmp_path, 8)
    again = Quadratic()
    found = search(again, tmp_path, 8)
    assert again.seen[0] == first.seen[3]  # the one that was interrupted
    assert len(again.seen) == 5
    assert len(study.ended(found)) == 8
    assert {trial.params["training.learning_rate"] for trial in study.ended(found)} == {*first.seen, *again.seen}
    more = Quadratic()
    search(more, tmp_path, 8)
    assert more.seen == []


def test_another_space_or_other_data_is_another_study(tmp_path: Path) -> None:
    search(Quadratic(), tmp_path, 2)
    for changed in (
        {"data": "e"},
        {"seed": 2},
        {"options": [space.Option(name="training.learning_rate", low=0.01, high=0.02)]},
    ):
        train = Quadratic()
        search(train, tmp_path, 2, **changed)
        assert len(train.seen) == 2


def test_a_combination_that_cannot_be_counts_and_is_not_the_best(tmp_path: Path) -> None:
    def train(configuration: Mapping[str, Any], checkpoints: Path, report: Any) -> list[dict[str, float]]:
        if configuration["training"]["learning_rate"] != 0.03:
            raise ConfigurationError("not here")
        report({"epoch": 1, "validation_auc": 0.6})
        return [{"epoch": 1, "validation_auc": 0.6}]

    found = search(train, tmp_path, 4)
    assert len(study.ended(found)) == 4
    assert found.best_value == 0.6
    assert found.trials[1].user_attrs["error"] == "not here"


def test_a_training_that_diverges_counts_and_does_not_come_again(tmp_path: Path) -> None:
    def train(configuration: Mapping[str, Any], checkpoints: Path, report: Any) -> list[dict[str, float]]:
        if configuration["training"]["learning_rate"] != 0.03:
            raise TrainingError("the loss is nan")
        report({"epoch": 1, "validation_auc": 0.6})
        return [{"epoch": 1, "validation_auc": 0.6}]

    found = search(train, tmp_path, 3)
    assert len(study.ended(found)) == 3
    assert found.best_value == 0.6
    assert found.trials[2].user_attrs["error"] == "the loss is nan"


def test_a_configuration_outside_the_space_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    search(Quadratic(), tmp_path, 1, defaults={"model": {}, "training": {"learning_rate": 0.5}})
    assert "does not hold what is configured of training.learning_rate" in caplog.text


def test_a_budget_is_read_and_checked() -> None:
    assert study.Budget.read({"trials": 3, "minutes": None, "space": {}}) == study.Budget(trials=3)
    for given, said in (
        ({"trials": 0}, "trials must be a whole number from 1"),
        ({"trial": 1}, "did you mean 'trials'"),
    ):
        with pytest.raises(ConfigurationError, match=said):
            study.Budget.read(given)


def test_a_search_that_ran_out_of_time_begins_no_trial(tmp_path: Path) -> None:
    train = Quadratic()
    given = {"architecture": "star", "options": OPTIONS, "defaults": DEFAULTS, "data": "d", "seed": 1}
    study.run(train, budget=study.Budget(trials=5, minutes=0), folder=tmp_path, **given)
    assert train.seen == []


@pytest.fixture
def encoded(tmp_path: Path) -> Path:
    return write_encoded(tmp_path / "encoded", {"train": 1000, "validation": 400, "test": 100})


def test_real_trainings_leave_a_conf_file_that_builds_and_runs_in_mlflow(
    encoded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MULTIDOMAIN_DATA", str(tmp_path / "data"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    model, training = {"embedding_dim": 4, "hidden": [8], "dropout": 0.1}, {"epochs": 2, "batch_size": 200}
    asked = {
        "trials": 3,
        "minutes": None,
        "space": {
            "all": {"model.dropout": {"low": 0.0, "high": 0.3}},
            "star": {"model.hidden": {"choices": [[8], [6]]}},
        },
    }
    table, write = tune(encoded, tmp_path / "studies", "star", model, training, asked, 1, "cpu")
    (tmp_path / "best").mkdir()
    write(tmp_path / "best")
    text = (tmp_path / "best" / "star.yml").read_text("utf-8")
    assert "conf/local/parameters/models/star.yml" in text
    best = yaml.safe_load(text)["star"]
    assert best["training"] == training
    assert best["model"]["hidden"] in ([8], [6])
    build("star", EncodedSplit(encoded, "train").inputs, **best["model"])
    assert (tmp_path / "best" / "course.png").read_bytes().startswith(b"\x89PNG")
    assert len(table) == 3

    class Variant:
        name = "place"

        class schema:
            name = "tiny"

    runs = track(Variant(), "star", table, tmp_path / "best")  # type: ignore[arg-type]
    import mlflow

    from multidomain import tracking

    client = tracking.connect()
    assert isinstance(client, mlflow.MlflowClient)
    nested = client.get_run(runs["runs"][0]["run_id"])
    assert nested.data.tags["mlflow.parentRunId"] == runs["run_id"]
    assert nested.data.params["model.dropout"] == "0.1"


def test_a_training_that_was_killed_goes_on_from_its_checkpoint(encoded: Path, tmp_path: Path) -> None:
    train = trainer(encoded, "star", 1, "cpu")
    settings = {"model": {"embedding_dim": 4, "hidden": [8]}, "training": {"epochs": 3, "batch_size": 200}}
    told: list[float] = []

    def stop(numbers: Mapping[str, float]) -> None:
        told.append(numbers["epoch"])
        if numbers["epoch"] == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(settings, tmp_path / "place", stop)
    resumed: list[float] = []
    history = train(settings, tmp_path / "place", lambda numbers: resumed.append(numbers["epoch"]))
    assert told == [1, 2]
    assert resumed == [1, 2, 3]
    plain = train(settings, tmp_path / "other", lambda numbers: None)
    assert [row["validation_auc"] for row in history] == [row["validation_auc"] for row in plain]
