"""An online store that is out of date or holds something else stops the run, after all was written and recorded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from kedro.io import DataCatalog, MemoryDataset
from kedro.runner import SequentialRunner
from kedro_datasets.json import JSONDataset
from small_ranker import SmallLog
from trained_variant import variant

from multidomain import tracking
from multidomain.errors import ConfigurationError, DataError
from multidomain.features.materialize import materialize
from multidomain.io import Folder, ParquetTable
from multidomain.pipeline_registry import register_pipelines
from multidomain.pipelines.check_freshness.nodes import judge_freshness, measure_freshness

OPTIONS: dict[str, Any] = {
    "at": None, "rows": 100, "seed": 1, "max_age_hours": 36, "max_absent": 0.0, "max_behind": 0.0, "max_differing": 0,
}  # fmt: skip
FINE: dict[str, Any] = {
    "view": "user_counts", "kind": "instant", "keys": 100, "absent": 0, "behind": 0, "pushed": 0, "differing": 0,
    "example": "", "offline": "2001-02-05T00:00:00+00:00", "online": "2001-02-05T00:00:00+00:00",
    "loaded": "2001-02-06T00:00:00+00:00", "age_hours": 1.5,
}  # fmt: skip


def judged(folder: Path, *views: dict[str, Any], at: str | None = None, **options: Any) -> str:
    """What is said; nothing where all is well."""
    found = {"at": at, "store": "online.db", "views": [FINE | view for view in views]}
    try:
        judge_freshness(variant(folder), found, {}, OPTIONS | options)
    except DataError as error:
        return error.message
    return ""


def test_nothing_is_said_of_what_is_fresh(tmp_path):
    assert judged(tmp_path, {}, {"view": "item_profile", "kind": "profile", "online": None, "offline": None}) == ""


@pytest.mark.parametrize(("age", "fails"), [(36.0, False), (36.1, True)])
def test_a_view_may_be_as_old_as_is_allowed(tmp_path, age, fails):
    said = judged(tmp_path, {"age_hours": age, "online": "2001-02-03T11:54:00+00:00"}, at="2001-02-05T00:00:00+00:00")
    assert bool(said) == fails
    if fails:
        assert "user_counts: its newest value is of 2001-02-03T11:54:00+00:00, 36.1 hours before 2001-02-05" in said
        assert "(allowed: 36)" in said


@pytest.mark.parametrize(("name", "words"), [("absent", "are absent"), ("behind", "have an older value")])
def test_a_share_of_keys_may_be_absent_or_behind_by_its_own_option(tmp_path, name, words):
    assert judged(tmp_path, {name: 5}, **{f"max_{name}": 0.05}) == ""
    said = judged(tmp_path, {name: 6}, **{f"max_{name}": 0.05})
    assert f"6 of 100 keys {words}" in said
    assert "(allowed: 0.05 of them)" in said


def test_what_to_do_depends_on_why_it_is_stale(tmp_path):
    old = {"age_hours": 99.0, "online": "2001-02-01T00:00:00+00:00"}
    since = judged(tmp_path, old | {"loaded": "2001-02-01T00:00:00+00:00"})
    assert since.endswith("Load what has come since: kedro run --pipeline=materialize.")
    lost = judged(tmp_path, old)  # the registry says it was loaded
    assert lost.endswith("kedro run --pipeline=materialize --params=materialize.full=true.")
    ended = judged(tmp_path, {"age_hours": 99.0})  # the newest row is online
    assert "the log that has nothing newer" in ended
    assert "kedro run --pipeline=prepare, then kedro run --pipeline=materialize" in ended
    never = judged(tmp_path, {"online": None, "age_hours": None, "absent": 100, "loaded": None})
    assert "user_counts: nothing that its table holds is online; 100 of 100 keys are absent" in never
    assert "it was never loaded" in never


def test_stale_and_skew_are_both_said(tmp_path):
    said = judged(tmp_path, {"absent": 1}, {"differing": 2, "example": "user_rate of user 1: offline 1, online 0"})
    assert said.startswith("stale: tiny/")
    assert "\nskew: tiny/" in said
    assert "user_counts: 2 values differ; user_rate of user 1: offline 1, online 0" in said
    assert judged(tmp_path, {"differing": 2}, max_differing=2) == ""


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"max_age_hour": 3}, "'max_age_hour' is not known; did you mean 'max_age_hours'"),
        ({"rows": 0}, "check_freshness.rows must be a whole number from 1 up"),
        ({"max_absent": "none"}, "must be a number from 0 up"),
        ({"at": "yesterday"}, "check_freshness.at must be a time such as"),
    ],
)
def test_a_wrong_option_is_refused_before_anything_is_read(tmp_path, options, words):
    with pytest.raises(ConfigurationError, match=words):
        measure_freshness(variant(tmp_path), tmp_path, None, OPTIONS | options)  # type: ignore[arg-type]


@pytest.fixture
def small(tmp_path, monkeypatch):
    monkeypatch.setenv("MULTIDOMAIN_DATA", str(tmp_path / "data"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return SmallLog(tmp_path, rows=200)


def catalog(small: SmallLog) -> DataCatalog:
    place = small.folder / "reports"
    return DataCatalog(
        {
            "variant": MemoryDataset(small.variant, copy_mode="assign"),
            "feature_views": Folder(filepath=str(small.bench.views)),
            "training_frame": ParquetTable(filepath=str(small.frame)),
            "params:check_freshness": MemoryDataset(OPTIONS),
            "freshness": JSONDataset(filepath=str(place / "freshness.json")),
            "freshness_page": Folder(filepath=str(place / "page")),
            "freshness_run": JSONDataset(filepath=str(place / "run.json")),
        }
    )


def test_a_stale_store_is_written_and_recorded_before_the_run_stops_and_a_loaded_one_passes(small):
    pipeline, data = register_pipelines()["check_freshness"], catalog(small)
    with pytest.raises(DataError, match="stale: "):
        SequentialRunner().run(pipeline, data)
    client = tracking.connect()
    stale = client.get_run(data.load("freshness_run")["run_id"])
    assert stale.data.metrics["view/item_profile/absent"] == 4
    assert "view/user_counts/age_hours" not in stale.data.metrics
    assert stale.data.metrics["psi/online against tables/user_count"] > 0.25

    materialize(small.variant)
    SequentialRunner().run(pipeline, data)
    run = client.get_run(data.load("freshness_run")["run_id"])
    assert run.data.tags["kind"] == "freshness"
    assert run.data.metrics["view/user_counts/age_hours"] == 0
    assert run.data.metrics["view/item_profile/absent"] == 0
    assert run.data.metrics["psi/online against tables/user_count"] == 0
    logged = {file.path for file in client.list_artifacts(run.info.run_id)}
    assert logged == {"views.parquet", "features.parquet", "ages.png", "values.png", "report.html"}

    page = data.load("freshness_page")
    assert {path.name for path in page.iterdir()} == logged
    found = json.loads((small.folder / "reports/freshness.json").read_text())
    views = pd.read_parquet(page / "views.parquet")
    assert views.view.tolist() == [line["view"] for line in found["views"]]
    said = (page / "report.html").read_text()
    assert "online_store.db" in said
    assert "http" not in said.split("<body>")[1].replace("http://www.w3.org", "")  # it needs no network
    assert all(f"<th>{name}</th>" in said for name in views.view)
