"""The pipeline stream_<architecture>: from an encoder or a package, over a stream, to versions that are served."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import ibis
import pandas as pd
import pyarrow as pa
import pytest
import trained_variant
from small_stream import arrive
from trained_variant import MODELS

from multidomain.errors import ConfigurationError
from multidomain.packaging import registry
from multidomain.packaging.scorer import Scorer
from multidomain.pipelines.stream.nodes import draw, stream
from multidomain.pipelines.stream.versions import Versions

if TYPE_CHECKING:
    from pathlib import Path

    from trained_variant import Tiny

pytest_plugins = ["trained_variant"]
TRAINING = {"batch_size": 50, "learning_rate": 0.01}
GATE = {"pcoc_low": 0.0, "pcoc_high": 9.0, "domain_rows": 100_000}


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An MLflow of this test's own."""
    monkeypatch.setenv("MULTIDOMAIN_DATA", str(tmp_path / "data"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return tmp_path


def rows(count: int = 700, seed: int = 5) -> pa.Table:
    table = trained_variant.frame(count, seed)
    return table.set_column(0, "impression_id", pa.array(range(10_000, 10_000 + count), pa.int64()))


def follow(tiny: Tiny, folder: Path, kept: str = "kept", **changed):
    settings = {"source": {"path": str(folder / "files")}, "buffer_rows": 150, "package_rows": 300, "gate_rows": 200}
    given = {
        "variant": tiny.variant,
        "encoder": tiny.encoder,
        "kept": folder / kept,
        "architecture": "star",
        "model": MODELS["star"],
        "training": TRAINING,
        "stream": settings,
        "seed": 1,
        "device": "cpu",
        "gate": GATE,
        "show_progress": False,
    }
    return stream(**{**given, **changed})


def test_versions_are_packaged_on_the_way_and_score_as_the_model_did_then(tiny, own):
    arrive(own / "files", rows(), [])
    write, windows, report = follow(tiny, own)
    assert [version["rows"] for version in report["versions"]] == [300, 600]
    first, second = report["versions"]
    assert first["alias"] == "champion"
    assert first["gate"]["reasons"] == []
    assert first["checks"]["max_difference"] < 1e-5
    assert set(second["gate"]) >= {"auc_difference", "gauc_difference"}  # it was compared
    name, version = registry.find(tiny.variant.key, "star")
    assert version == str(second["version"] if second["gate"]["passed"] else first["version"])
    assert registry.scorer(name, version).score(_columns(registry.scorer(name, version))).shape == (700,)
    (own / "model").mkdir()
    write(own / "model")
    scorer = Scorer.load(own / "model/encoder", own / "model/model")
    assert 0 < scorer.score(_columns(scorer)).mean() < 1
    assert windows.num_rows > 0


def _columns(scorer) -> pa.Table:
    return rows().select(list(scorer.columns)).cast(pa.schema(list(scorer.columns.items())))


def test_a_version_beyond_the_gate_is_a_challenger_and_says_why(tiny, own):
    arrive(own / "files", rows(), [])
    _, _, report = follow(tiny, own, gate={**GATE, "pcoc_low": 5.0})
    assert [version["alias"] for version in report["versions"]] == ["champion", "challenger"]
    assert "First version" in report["versions"][0]["gate"]["reasons"][0]
    assert "PCOC is" in report["versions"][1]["gate"]["reasons"][0]


def test_a_crash_while_packaging_makes_no_version_twice(tiny, own, monkeypatch):
    arrive(own / "files", rows(), [])
    package = Versions.package

    def dying(self, one):
        package(self, one)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Versions, "package", dying)
        for _ in range(2):
            with pytest.raises(KeyboardInterrupt):
                follow(tiny, own)
    assert registry.of_variant(tiny.variant.key) == {"multidomain-tiny-place-user_time-full-click-star": 1}
    _, _, report = follow(tiny, own)
    assert [version["rows"] for version in report["versions"]] == [300, 600]
    assert sum(registry.of_variant(tiny.variant.key).values()) == 2


def test_a_stream_that_begins_anew_as_it_was_told_to_packages_its_own_versions(tiny, own):
    arrive(own / "files", rows(320), [])
    follow(tiny, own)
    with pytest.raises(ConfigurationError, match=r"remove (\S+/checkpoints) to begin anew"):
        follow(tiny, own, seed=2)
    shutil.rmtree(own / "kept/checkpoints")
    _, _, report = follow(tiny, own, seed=2)
    assert [(version["rows"], int(version["version"])) for version in report["versions"]] == [(300, 2)]
    assert sum(registry.of_variant(tiny.variant.key).values()) == 2


def test_a_stream_begins_with_a_package(tiny, packages, tracked, tmp_path, caplog):
    arrive(tmp_path / "files", rows(200), [])
    caplog.set_level("INFO")
    settings = {"source": {"path": str(tmp_path / "files")}, "buffer_rows": 150, "package_rows": None}
    _, warm, _ = follow(tiny, tmp_path, stream=settings, warm_start="champion")
    assert "The stream begins with the weights of" in caplog.text
    _, cold, _ = follow(tiny, tmp_path, "cold", stream=settings)
    losses = [one.to_pandas().query("domain == '(overall)'")["logloss"].iloc[0] for one in (warm, cold)]
    assert losses[0] != losses[1]
    with pytest.raises(ConfigurationError, match=r"other options \(hidden: \[16, 8\] then, \[8\] now\)"):
        follow(tiny, tmp_path, "c", stream=settings, warm_start=1, model={"embedding_dim": 4, "hidden": [8]})


def test_a_folder_must_be_named(tiny, own):
    with pytest.raises(ConfigurationError, match=r"stream\.source\.path is not set: the folder in which Parquet"):
        follow(tiny, own, stream={})


def test_the_course_is_drawn(tmp_path):
    table = pd.DataFrame(
        {
            "window": [1, 1, 2, 2],
            "first_row": [0, 0, 100, 100],
            "domain": ["(overall)", "home", "(overall)", "home"],
            "rows": [100, 60, 100, 50],
            "positives": [10, 5, 8, 0],
            "auc": [0.6, 0.7, 0.65, None],
            "pcoc": [1.0, 1.1, 0.9, None],
            "logloss": [0.3, 0.2, 0.3, 0.1],
        }
    )
    draw(ibis.memtable(table))(tmp_path)
    assert (tmp_path / "course.png").stat().st_size > 10_000


def test_a_misspelt_setting_ends_the_run_before_it_starts(project):
    from kedro.framework.session import KedroSession
    from kedro.framework.startup import bootstrap_project

    bootstrap_project(project)
    with (
        KedroSession.create(project, runtime_params={"stream": {"bufer_rows": 3}}) as session,
        pytest.raises(ConfigurationError, match="bufer_rows"),
    ):
        session.run(pipeline_names=["stream_star"])


def test_every_architecture_has_its_pipeline_and_its_report_is_json(tiny, own):
    from multidomain.models import architectures
    from multidomain.pipeline_registry import register_pipelines

    assert {f"stream_{name}" for name in architectures()} <= register_pipelines().keys()
    arrive(own / "files", rows(60), [])
    assert json.dumps(follow(tiny, own)[2])
