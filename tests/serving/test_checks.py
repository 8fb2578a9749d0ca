"""A dropped view, a leak, a skew and a stale store, planted for real, are each caught by name and told what to do."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from feature_oracle import DAY, START, Bench, log, one_world, small_schema
from small_ranker import SmallLog

from multidomain.errors import DataError
from multidomain.features import repository, views
from multidomain.features.frame import TrainingFrame
from multidomain.features.materialize import materialize
from multidomain.io import connection
from multidomain.pipelines.check_freshness.nodes import judge_freshness, measure_freshness
from multidomain.pipelines.check_parity.nodes import check_leaks, check_views, judge_parity
from multidomain.serving import Ranker, parity

PARITY = {"moments": 3, "rows": 60, "seed": 1, "leak_rows": 300, "allowed": 0, "allowed_score": 1e-6}
FRESHNESS: dict[str, Any] = {
    "at": None, "rows": 200, "seed": 1, "max_age_hours": 36, "max_absent": 0.0, "max_behind": 0.0, "max_differing": 0,
}  # fmt: skip
EARLY = dt.datetime.fromtimestamp((START + 1.5 * DAY) / 1e6, dt.UTC)  # on the second of the log's five days


@pytest.fixture
def small(tmp_path, monkeypatch):
    """The small log, registered and loaded, with an untrained model; what is planted in it ends with the test."""
    monkeypatch.setenv("MULTIDOMAIN_DATA", str(tmp_path / "data"))
    made = SmallLog(tmp_path, rows=300)
    materialize(made.variant)
    return made


def views_check(small: SmallLog) -> dict[str, Any]:
    return check_views(small.variant, PARITY)


def leak_check(small: SmallLog) -> dict[str, Any]:
    partitioned, _, _, items = small.bench.tables(one_world(log(7, rows=300)))
    return check_leaks(small.variant, partitioned, items, small.bench.views, frame(small.frame), {}, PARITY)


def skew_check(small: SmallLog) -> None:
    """Parity over stores of its own."""
    found = parity.measure(small.variant, frame(small.frame), small.scorer, moments=3, rows=60)
    report = {"features": found.features.to_dict("records"), "rows": found.rows, "moments": [1, 2, 3]}
    judge_parity(small.variant, report | {"score_difference": found.score_difference}, PARITY)


def freshness_check(small: SmallLog, **options: Any) -> dict[str, Any]:
    found = measure_freshness(small.variant, small.bench.views, frame(small.frame), FRESHNESS | options)
    judge_freshness(small.variant, found, {}, FRESHNESS | options)
    return found


def frame(path: Path) -> Any:
    return connection().read_parquet(str(path))


def refused(check: Any, *arguments: Any, **options: Any) -> str:
    with pytest.raises(DataError) as error:
        check(*arguments, **options)
    return error.value.message


def test_an_untouched_log_passes_all_of_them(small):
    planned = [view.name for view in views.views(small.variant)]
    assert views_check(small) == {"views": [*planned, "request_hour", "request_weekday"]}
    assert leak_check(small)["rows"] == 300
    skew_check(small)
    freshness_check(small)


# --- views ---------------------------------------------------------------------------------------------------------


def test_a_dropped_view_is_caught_by_the_check_views(small):
    store, _ = repository.service(small.variant)
    store.delete_feature_view("user_counts")
    for check in (views_check, freshness_check):  # both pipelines begin with it
        said = refused(check, small)
        assert said.startswith(f"views: {small.variant.key}: ")
        assert "view 'user_counts' is not registered" in said
        assert "item_counts" not in said
        assert "kedro run --nodes=apply_feature_repository, kedro run --pipeline=materialize" in said
    repository.apply(small.variant, small.bench.views)  # what it says
    materialize(small.variant)
    freshness_check(small)


def test_a_view_that_left_the_service_and_one_that_lost_a_feature_are_named(small):
    store, service = repository.service(small.variant)
    left = [view for view in store.list_feature_views() if view.name != "domain_counts"]
    for view in left:
        if view.name == "item_profile":
            view.projection.features = [field for field in view.projection.features if field.name != "year"]
    store.apply([type(service)(name=service.name, features=left)])
    said = refused(views_check, small)
    assert "view 'domain_counts' is not in feature service 'full'" in said
    assert "view 'item_profile' is in feature service 'full' without year" in said


def test_a_variant_that_was_never_registered_lacks_service_and_views(tmp_path, monkeypatch, small):
    monkeypatch.setenv("MULTIDOMAIN_DATA", str(tmp_path / "elsewhere"))
    said = refused(views_check, small)
    assert "there is no feature service 'full'" in said
    for view in views.views(small.variant):
        assert f"view '{view.name}' is not registered" in said


def test_a_dropped_on_demand_view_is_named_too(tmp_path, monkeypatch):
    monkeypatch.setenv("MULTIDOMAIN_DATA", str(tmp_path / "data"))
    bench = Bench(tmp_path, small_schema(tmp_path, request="[hour, weekday]").variant())
    bench.build(one_world(log(7)))
    repository.apply(bench.variant, bench.views)
    assert check_views(bench.variant, PARITY)["views"][-2:] == ["request_hour", "request_weekday"]
    repository.service(bench.variant)[0].delete_feature_view("request_hour")
    said = refused(check_views, bench.variant, PARITY)
    assert "view 'request_hour' is not registered" in said
    assert "request_weekday" not in said


# --- leak ----------------------------------------------------------------------------------------------------------


def rejoined(small: SmallLog) -> None:
    """Views and training frame made again, as ``--pipeline=features`` does."""
    rows = one_world(log(7, rows=300))
    small.bench.build(rows)
    partitioned, context, _, _ = small.bench.tables(rows)
    TrainingFrame(small.variant, partitioned, context)(small.frame)


def test_features_stamped_at_the_impressions_own_time_are_caught_by_the_check_leak(small, monkeypatch):
    with monkeypatch.context() as planted:
        planted.setattr(views, "_known_after", lambda instant: instant.cast("timestamp('UTC', 6)"))
        rejoined(small)
    said = refused(leak_check, small)
    assert said.startswith(f"leak: {small.variant.key}: of 300 impressions")
    assert "user_counts, user_count: 300 impressions; impression " in said
    assert "user_history, positives_state: " in said
    assert "item_count" not in said
    for words in ("its instant + 1 microsecond", "next midnight UTC", "kedro run --pipeline=features"):
        assert words in said
    rejoined(small)  # what it says, the fault put right
    leak_check(small)


def test_a_days_counts_known_on_that_day_are_caught_too(small, monkeypatch):
    with monkeypatch.context() as planted:
        same_day = "timestamp('UTC', 6)"
        planted.setattr(views, "_next_midnight", lambda day: day.cast("timestamp(6)").cast(same_day))
        rejoined(small)
    said = refused(leak_check, small)
    assert "item_counts, item_count: " in said
    assert "user_counts" not in said


# --- skew ----------------------------------------------------------------------------------------------------------


def test_another_default_online_is_caught_by_the_check_skew(small, monkeypatch):
    read = parity.Ranker._read

    def skewed(self: Ranker, distinct: Any, *options: Any) -> Any:
        values, absent = read(self, distinct, *options)
        values["item",]["year"] = [year or 0 for year in values["item",]["year"]]
        return values, absent

    monkeypatch.setattr(parity.Ranker, "_read", skewed)
    said = refused(skew_check, small)
    assert said.startswith(f"skew: {small.variant.key}: ")
    assert "year: 0 differ, " in said
    assert "offline None, online 0" in said
    assert "kedro run --pipeline=features" in said


def test_a_default_written_into_the_store_is_caught_by_the_check_skew_too(small):
    store, _ = repository.service(small.variant)
    table = pd.read_parquet(small.bench.views / "item_profile.parquet")
    unknown = table[table["year"].isna()].assign(year=0)
    store.write_to_online_store("item_profile", unknown.astype({"year": "int64"}))
    said = refused(freshness_check, small)
    assert said.startswith(f"skew: {small.variant.key}: ")
    assert "item_profile: 1 values differ; year of item 03: offline None, online 0" in said
    assert "kedro run --pipeline=materialize --params=materialize.full=true" in said
    materialize(small.variant, full=True)  # what it says
    freshness_check(small)


# --- stale ---------------------------------------------------------------------------------------------------------


def test_a_store_loaded_up_to_an_early_time_alone_is_caught_by_the_check_stale(small):
    emptied(small)
    materialize(small.variant, until=EARLY)
    said = refused(freshness_check, small)
    assert said.startswith(f"stale: {small.variant.key}: ")
    assert str(small.folder / "data/04_feature/online_store.db") in said
    for view in ("user_history", "user_counts", "item_counts", "domain_counts"):
        assert f"  {view}: its newest value is of 2001-09-1" in said
    assert "profile" not in said
    assert "have an older value than the table" in said
    assert said.endswith("Load what has come since: kedro run --pipeline=materialize.")
    materialize(small.variant)  # what it says
    freshness_check(small)


def test_a_store_that_was_never_loaded_is_stale(small):
    emptied(small)
    said = refused(freshness_check, small)
    assert "user_counts: nothing that its table holds is online; 4 of 4 keys are absent" in said
    assert "item_profile: 4 of 4 keys are absent" in said
    assert "it was never loaded" in said
    assert said.endswith("Load what has come since: kedro run --pipeline=materialize.")


def test_a_store_that_lost_what_the_registry_says_was_loaded_has_to_be_loaded_whole(small):
    (small.folder / "data/04_feature/online_store.db").unlink()
    said = refused(freshness_check, small)
    assert "goes on from the last one passes what is lacking by" in said
    assert said.endswith("kedro run --pipeline=materialize --params=materialize.full=true.")
    materialize(small.variant, full=True)
    freshness_check(small)


def test_a_log_that_ended_long_ago_is_stale_for_a_service_of_now_whatever_is_loaded(small):
    said = refused(freshness_check, small, at="now")
    assert "user_counts: its newest value is of 2001-09-1" in said
    assert "kedro run --pipeline=prepare, then kedro run --pipeline=materialize" in said


def emptied(small: SmallLog) -> None:
    """As if nothing had ever been loaded: an empty store, and a registry that knows of no load."""
    for path in (small.folder / "data").rglob("*.db*"):
        path.unlink()
    repository.apply(small.variant, small.bench.views)
