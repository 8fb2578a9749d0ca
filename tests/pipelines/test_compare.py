from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
import torch
from places import PROJECT
from scipy import stats

from multidomain.comparison.leaderboard import DELONG, T_TEST
from multidomain.comparison.results import FILES
from multidomain.errors import ConfigurationError, DataError, UserError
from multidomain.evaluation.metrics import auc, logloss
from multidomain.io import Folder, ParquetTable
from multidomain.pipelines.compare import jobs
from multidomain.pipelines.compare.nodes import data_digest, present, rank, track, train_each
from multidomain.pipelines.compare.pipeline import create_pipeline

if TYPE_CHECKING:
    from trained_variant import Tiny, Trained

    Both = tuple[Trained, Trained]

pytest_plugins = ["trained_variant"]


def parameters(**compare: Any) -> dict[str, Any]:
    from trained_variant import MODELS, TRAINING

    own = {name: {"model": model, "training": TRAINING} for name, model in MODELS.items()}
    asked = {"models": ["star", "dnn"], "seeds": [1, 2], "base": "dnn", "workers": 1, **compare}
    return {"compare": asked, "device": "cpu", **own}


class Place:
    """A folder for results and checkpoints, and the node on it."""

    def __init__(self, tiny: Tiny, folder: Path) -> None:
        self.tiny, self.results, self.checkpoints = tiny, folder / "results", folder / "checkpoints"
        for each in (self.results, self.checkpoints):
            each.mkdir(parents=True, exist_ok=True)

    def train(self, given: dict[str, Any] | None = None, encoded: Path | None = None, **compare: Any) -> dict[str, Any]:
        given = given or parameters(**compare)
        return train_each(self.tiny.variant, encoded or self.tiny.encoded, self.results, self.checkpoints, given)

    def rank(self, compared: dict[str, Any]) -> tuple[pd.DataFrame, dict[str, Any]]:
        return rank(self.tiny.variant, self.tiny.encoded, self.results, compared)

    def folder(self, compared: dict[str, Any], label: str, seed: int) -> Path:
        found = [one for one in compared["results"] if (one["label"], one["seed"]) == (label, seed)]
        return self.results / found[0]["folder"]


@pytest.fixture(scope="module")
def done(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> tuple[Place, dict[str, Any]]:
    """STAR and the DNN with two seeds; not to be written to."""
    place = Place(tiny, tmp_path_factory.mktemp("compared"))
    return place, place.train()


@pytest.fixture
def place(done: tuple[Place, dict[str, Any]], tmp_path: Path) -> Place:
    """A copy of those results, to be spoilt."""
    shutil.copytree(done[0].results, tmp_path / "results")
    return Place(done[0].tiny, tmp_path)


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Architecture and seed of every training that takes place."""
    seen, real = [], jobs.train

    def watched(*arguments: Any) -> Any:
        seen.append((arguments[2], arguments[5]))
        return real(*arguments)

    monkeypatch.setattr(jobs, "train", watched)
    return seen


def test_every_model_and_seed_leaves_a_folder_with_everything(done: tuple[Place, dict[str, Any]]) -> None:
    place, compared = done
    assert [(one["label"], one["seed"]) for one in compared["results"]] == [
        ("star", 1),
        ("dnn", 1),
        ("star", 2),
        ("dnn", 2),
    ]
    for one in compared["results"]:
        folder = place.results / one["folder"]
        assert {path.name for path in folder.iterdir()} == set(FILES)
        about = json.loads((folder / "result.json").read_text())
        assert about["digest"] == one["digest"]
        assert about["model"]["hidden"] == [16, 8]
        assert about["training"]["epochs"] == len(pd.read_csv(folder / "history.csv")) == 2
        assert about["training_rows_per_second"] > 0
        assert about["inference_ms_per_2000_rows"] > 0
        assert about["data"] == data_digest(place.tiny.encoded)
    assert not [path for path in place.checkpoints.rglob("*") if path.is_file()]


def test_a_result_is_bit_for_bit_that_of_train_star(done: tuple[Place, dict[str, Any]], stars: Both) -> None:
    place, compared = done
    for run in stars:
        folder = place.folder(compared, "star", run.seed)
        metrics = json.loads((folder / "metrics.json").read_text())
        assert metrics["overall"]["auc"] == run.metrics["overall"]["auc"]
        assert metrics == run.metrics
        mine = pd.read_parquet(folder / "predictions.parquet")
        pd.testing.assert_frame_equal(mine, run.predictions.load().to_pandas(), check_exact=True)


def test_the_leaderboard_holds_what_the_predictions_give(done: tuple[Place, dict[str, Any]]) -> None:
    place, compared = done
    table, comparison = place.rank(compared)
    found = table.set_index("label")
    areas = {}
    for label in ("star", "dnn"):
        frames = [pd.read_parquet(place.folder(compared, label, seed) / "predictions.parquet") for seed in (1, 2)]
        areas[label] = [auc(frame.label, frame.score) for frame in frames]
        assert found.auc_mean[label] == pytest.approx(np.mean(areas[label]))
        assert found.auc_sd[label] == pytest.approx(np.std(areas[label], ddof=1))
        assert found.logloss_mean[label] == pytest.approx(np.mean([logloss(f.label, f.score) for f in frames]))
        ranges = []
        for frame in frames:
            ratio = frame.groupby("domain").score.mean() / frame.groupby("domain").label.mean()
            ranges.append(ratio.max() - ratio.min())
        assert found.pcoc_range_mean[label] == pytest.approx(np.mean(ranges))
    assert table.auc_mean.is_monotonic_decreasing
    best, second = table.label
    assert comparison["tests"][T_TEST]["p"] == pytest.approx(stats.ttest_rel(areas[best], areas[second]).pvalue)
    assert 0 < comparison["tests"][DELONG]["p"] <= 1
    assert set(comparison["domains"][best]) == {"home", "search", "detail page"}
    json.dumps(comparison, allow_nan=False)


def test_parameters_are_split_into_tables_and_the_rest(done: tuple[Place, dict[str, Any]]) -> None:
    table = done[0].rank(done[1])[0].set_index("label")
    assert table.parameters_embedding["star"] == table.parameters_embedding["dnn"] > 0
    assert table.parameters_rest["star"] > table.parameters_rest["dnn"]


def test_what_is_there_is_not_trained_again(place: Place, trained: list[Any], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        place.train()
    assert trained == []
    assert "4 results: 4 are there, 0 to make" in caplog.text


@pytest.mark.parametrize("lost", ["result.json", "predictions.parquet"])
def test_a_result_that_is_not_whole_is_made_again(place: Place, trained: list[Any], lost: str) -> None:
    compared = place.train()
    (place.folder(compared, "dnn", 2) / lost).unlink()
    assert place.train()["results"] == compared["results"]
    assert trained == [("dnn", 2)]


def test_another_seed_and_another_model_are_all_that_is_added(place: Place, trained: list[Any]) -> None:
    wide = {"label": "wide", "architecture": "dnn", "model": {"hidden": [32]}}
    place.train(models=["star", wide], seeds="2 3")
    assert trained == [("dnn", 2), ("star", 3), ("dnn", 3)]


def test_a_changed_option_is_computed_again_and_said_so(
    place: Place, trained: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    before = place.train()
    changed = parameters()
    changed["dnn"]["model"] = {**changed["dnn"]["model"], "dropout": 0.2}
    changed["dnn"]["training"] = {**changed["dnn"]["training"], "batch_size": 32}
    with caplog.at_level(logging.INFO):
        after = place.train(changed)
    assert trained == [("dnn", 1), ("dnn", 2)]
    assert "dnn, seed 1 is computed again: model.dropout 0.2, was 0.0; training.batch_size 32, was 64" in caplog.text
    assert place.folder(before, "dnn", 1) != place.folder(after, "dnn", 1)
    trained.clear()
    assert place.train() == before  # and back: nothing was lost
    assert trained == []


def test_other_data_is_another_result(
    place: Place, trained: list[Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    encoded = tmp_path / "encoded"
    shutil.copytree(place.tiny.encoded, encoded)
    label = np.load(encoded / "train/label.npy")
    np.save(encoded / "train/label.npy", 1 - label)
    with caplog.at_level(logging.INFO):
        place.train(encoded=encoded, models="dnn", seeds=1)
    assert trained == [("dnn", 1)]
    assert "dnn, seed 1 is computed again: other encoded data" in caplog.text


def test_the_digest_of_the_data_knows_its_groups_and_not_its_files(tiny: Tiny, tmp_path: Path) -> None:
    encoded = tmp_path / "encoded"
    shutil.copytree(tiny.encoded, encoded)
    rows = pd.read_parquet(encoded / "test/rows.parquet")
    rows.to_parquet(encoded / "test/rows.parquet", compression="gzip")
    assert data_digest(encoded) == data_digest(tiny.encoded)
    rows.assign(group="one").to_parquet(encoded / "test/rows.parquet")
    assert data_digest(encoded) != data_digest(tiny.encoded)


def test_changed_code_is_said_and_the_result_is_kept(
    place: Place, trained: list[Any], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(jobs, "code", lambda architecture: "other")
    compared = place.train(models="dnn")
    assert trained == []
    assert "The code of models, layers or training has changed since 2 results were made: dnn, seed 1" in caplog.text
    about = place.folder(compared, "dnn", 1) / "result.json"
    about.write_text(json.dumps({**json.loads(about.read_text()), "code": "other"}))
    assert "code" in " ".join(place.rank(compared)[1]["notes"])


def test_one_that_fails_does_not_keep_the_others_from_being_made(
    place: Place, monkeypatch: pytest.MonkeyPatch, trained: list[Any]
) -> None:
    watched = jobs.train

    def fails(*arguments: Any) -> Any:
        if arguments[5] == 7:
            raise DataError("no luck with this seed")
        return watched(*arguments)

    monkeypatch.setattr(jobs, "train", fails)
    with pytest.raises(UserError, match=r"1 of 2 results could not be made. dnn, seed 7: DataError: no luck") as raised:
        place.train(models="dnn", seeds=[7, 8])
    assert "run again" in str(raised.value)
    assert trained == [("dnn", 8)]


def test_an_entry_that_cannot_be_built_ends_the_run_before_the_first_training(place: Place, trained: list[Any]) -> None:
    bad = {"label": "tight", "architecture": "star", "model": {"hidden": [500], "max_domain_weight_gib": 1e-9}}
    with pytest.raises(ConfigurationError, match="'tight': The domain weights of 'star'"):
        place.train(models=["dnn", bad], seeds=[5])
    assert trained == []


def test_the_same_model_under_two_names_is_trained_once(place: Place, trained: list[Any]) -> None:
    twin = {"label": "twin", "architecture": "dnn", "model": {"hidden": [24]}}
    compared = place.train(models=[twin, {**twin, "label": "other"}], seeds=[1], base="twin")
    assert trained == [("dnn", 1)]
    table, _ = place.rank(compared)
    assert sorted(table.label) == ["other", "twin"]
    assert table.auc_mean[0] == table.auc_mean[1]


def test_a_missing_result_is_named_where_only_the_table_is_made_again(place: Place) -> None:
    compared = place.train()
    shutil.rmtree(place.folder(compared, "dnn", 1))
    with pytest.raises(DataError, match="The result of 'dnn' cannot be read"):
        place.rank(compared)


KILLED = """
import os, signal, sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from trained_variant import Tiny, variant
from multidomain.pipelines.compare import jobs
from multidomain.pipelines.compare.nodes import train_each
import json

folder, place, given = Path({folder!r}), Path({place!r}), json.loads({given!r})
started, real = [], jobs.train

def train(*arguments):
    started.append(arguments)
    if len(started) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*arguments)

jobs.train = train
train_each(variant(place), folder / "encoded", place / "results", place / "checkpoints", given)
"""


def test_a_run_killed_between_two_results_goes_on_at_the_missing_one(
    tiny: Tiny, tmp_path: Path, trained: list[Any]
) -> None:
    place, given = Place(tiny, tmp_path), parameters(seeds=[1])
    text = KILLED.format(
        tests=str(PROJECT / "tests"), folder=str(tiny.folder), place=str(tmp_path), given=json.dumps(given)
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    ended = subprocess.run([sys.executable, "-c", text], env=environment, capture_output=True, timeout=120, check=False)
    assert ended.returncode == -signal.SIGKILL
    assert len(list(place.results.glob("*/seed-1/result.json"))) == 1
    place.train(given)
    assert trained == [("dnn", 1)]
    assert len(list(place.results.glob("*/seed-1/result.json"))) == 2


def test_two_processes_give_the_results_of_one_and_tell_their_errors(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    alone, place = Place(tiny, tmp_path / "alone"), Place(tiny, tmp_path / "together")
    try:
        compared = alone.train(seeds=[1])
    finally:
        torch.set_num_threads(threads)
    wild = {"label": "wild", "architecture": "dnn", "training": {"learning_rate": 1e30}}
    with pytest.raises(UserError, match=r"1 of 3 results could not be made. wild, seed 1: TrainingError"):
        place.train(workers=2, seeds=[1], models=["star", "dnn", wild])
    for label in ("star", "dnn"):
        mine, theirs = place.folder(compared, label, 1), alone.folder(compared, label, 1)
        assert json.loads((mine / "metrics.json").read_text()) == json.loads((theirs / "metrics.json").read_text())
        about = json.loads((mine / "result.json").read_text())
        assert (about["workers"], about["threads"]) == (2, 1)
    assert any("2 trainings ran at the same time" in note for note in place.rank(compared)[1]["notes"])


def test_page_and_runs_are_made_of_the_leaderboard(
    done: tuple[Place, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MULTIDOMAIN_DATA", str(tmp_path))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    place, compared = done
    table, comparison = place.rank(compared)
    board, pages = ParquetTable(filepath=str(tmp_path / "l.parquet")), Folder(filepath=str(tmp_path / "page"))
    board.save(table)
    comparison = json.loads(json.dumps(comparison, allow_nan=False))
    pages.save(present(place.tiny.variant, board.load(), comparison))
    text = (tmp_path / "page/leaderboard.html").read_text("utf-8")
    assert "tiny/place-user_time-full-click" in text
    assert "540 training, 180 test rows" in text

    runs = track(place.tiny.variant, place.results, compared, board.load(), comparison, tmp_path / "page")
    from multidomain import tracking

    client = tracking.connect()
    parent = client.get_run(runs["run_id"])
    assert parent.data.tags["kind"] == "comparison"
    assert parent.data.metrics["star/auc"] == pytest.approx(table.set_index("label").auc_mean["star"])
    assert {file.path for file in client.list_artifacts(runs["run_id"])} >= {"leaderboard.html", "leaderboard.csv"}
    assert len(runs["runs"]) == 4
    for one in runs["runs"]:
        run = client.get_run(one["run_id"])
        metrics = json.loads((place.folder(compared, one["label"], one["seed"]) / "metrics.json").read_text())
        assert run.data.tags["mlflow.parentRunId"] == runs["run_id"]
        assert run.data.metrics["test_auc"] == metrics["overall"]["auc"]
        assert run.data.params["seed"] == str(one["seed"])
        assert len(client.get_metric_history(one["run_id"], "validation_auc")) == 2


def test_the_pipeline_is_wired_from_tensors_to_leaderboard() -> None:
    pipeline = create_pipeline()
    assert pipeline.inputs() == {"variant", "encoded", "comparison_results", "comparison_checkpoints", "parameters"}
    assert pipeline.all_outputs() == {"compared", "leaderboard", "comparison", "leaderboard_page", "comparison_runs"}
