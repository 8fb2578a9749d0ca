"""One day after the other through ``daily_<architecture>``: the next one, the same again, one that was missed."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import daily_log
import pytest
from kedro.framework.session import KedroSession
from kedro.framework.startup import bootstrap_project
from places import PROJECT

from multidomain import tracking
from multidomain.errors import ConfigurationError
from multidomain.packaging import days
from multidomain.window import Window

pytestmark = pytest.mark.slow
KEY = "daily/place-time-full-click"
MODEL = "multidomain-daily-place-time-full-click-dnn"


class Cycle:
    """The project on a data folder and a daily log of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        daily_log.schema(folder)
        daily_log.arrive(folder / "raw", 0, 1, 2)

    def run(self, number: int, *, learn: int | None = 1, start: str | None = "previous", **dnn: Any) -> dict[str, Any]:
        """The run for one day; what packaging says."""
        network = {"embedding_dim": 4, "hidden": [8]}
        parameters = {
            "dataset": "daily",
            "raw_folder": str(self.folder / "raw"),
            "window": {"until": daily_log.day(number).isoformat(), "days": learn},
            "warm_start": start,
            "gate": {"pcoc_low": 0.0, "pcoc_high": 10.0},
            "dnn": {"model": network, "training": {"epochs": 1, "batch_size": 64, **dnn}},
        }
        with KedroSession.create(project_path=PROJECT, runtime_params=parameters) as session:
            session.run(pipeline_names=["daily_dnn"])
        return self.package()

    def package(self) -> dict[str, Any]:
        return json.loads((self.folder / "data/08_reporting" / KEY / "dnn/package.json").read_text())

    def weights(self) -> str:
        model = self.folder / "data/06_models" / KEY / "dnn/model/weights.safetensors"
        return hashlib.sha256(model.read_bytes()).hexdigest()

    @staticmethod
    def versions() -> dict[int, str]:
        """Version -> the day it knows the log up to."""
        found = tracking.connect().search_model_versions(f"name='{MODEL}'")
        return {int(one.version): one.tags["until"] for one in found}

    @staticmethod
    def champion() -> int:
        return int(tracking.connect().get_model_version_by_alias(MODEL, "champion").version)


@pytest.fixture
def cycle(tmp_path, monkeypatch):
    bootstrap_project(PROJECT)
    for name, value in {"SCHEMAS": tmp_path, "DATA": tmp_path / "data"}.items():
        monkeypatch.setenv(f"MULTIDOMAIN_{name}", str(value))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return Cycle(tmp_path)


def test_days_follow_each_other_and_may_be_run_again_or_made_up_for(cycle, caplog):
    first = cycle.run(1, learn=None)
    assert first["alias"] == "champion"
    assert "training starts anew" in caplog.text

    cycle.run(2)
    assert "Training starts from multidomain-daily-place-time-full-click-dnn version 1" in caplog.text
    second, weights = cycle.package(), cycle.weights()
    materialized = json.loads((cycle.folder / "data/08_reporting" / KEY / "materialized.json").read_text())
    assert materialized["until"].startswith("2026-03-04T00:00:00")

    again = cycle.run(2)  # the version that is there stays, whoever is champion
    assert again == second
    assert cycle.weights() == weights
    assert cycle.versions() == {1: "2026-03-02", 2: "2026-03-03"}

    daily_log.arrive(cycle.folder / "raw", 3, 4)
    cycle.run(4)  # the day between was missed
    assert days.previous(KEY, "dnn", Window.read({"until": "2026-03-05"}))[1] == "2"
    champion = cycle.champion()
    late = cycle.run(3)
    assert late["alias"] == "challenger"
    assert late["gate"]["reasons"] == [days.newer((MODEL, str(champion)), daily_log.day(3))]
    assert cycle.champion() == champion
    assert cycle.versions()[late["version"]] == "2026-03-04"


def test_a_day_run_with_other_settings_is_another_version(cycle):
    cycle.run(1, learn=None)
    cycle.run(1, learn=None, learning_rate=0.01)
    assert cycle.versions() == {1: "2026-03-02", 2: "2026-03-02"}
    assert days.previous(KEY, "dnn", Window.read({"until": "2026-03-03"})) == (MODEL, "2")
    assert days.previous(KEY, "dnn", Window.read({"until": "2026-03-02"})) is None


def test_previous_needs_a_day():
    with pytest.raises(ConfigurationError, match=r"Set window\.until"):
        days.previous(KEY, "dnn", Window())
