"""Events pushed one by one leave online what the feature stage makes of the same log."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
from feature_oracle import DAY, PRIOR, START, Bench, log, one_world, small_schema

from multidomain import schema
from multidomain.errors import DataError
from multidomain.features import repository
from multidomain.features.materialize import materialize
from multidomain.serving import Event, record

VIEWS = ["user_history", "user_counts"]
AT = dt.datetime.fromtimestamp((START + 10 * DAY) / 1e6, dt.UTC)  # days after the log
USERS = ["ann@", "bob@", "cat@", "dan@"]


@pytest.fixture
def bench(tmp_path, monkeypatch):
    monkeypatch.setenv("MULTIDOMAIN_DATA", str(tmp_path / "data"))
    return Bench(tmp_path, small_schema(tmp_path).variant())


def started(bench: Bench, rows: pd.DataFrame) -> Any:
    """The store after the profiles and what the rows left are loaded."""
    bench.build(rows)
    repository.apply(bench.variant, bench.views)
    materialize(bench.variant, until=AT, full=True)
    return repository.service(bench.variant)[0]


def state(store: Any, users: list[str] = USERS) -> list[dict[str, Any]]:
    names = [f"user_history:positives_{name}" for name in ("film", "kind", "state")]
    names += ["user_counts:user_count", "user_counts:user_rate"]
    found = store.get_online_features(features=names, entity_rows=[{"user": user} for user in users]).to_dict()
    return pa.Table.from_pydict(found).to_pylist()


def test_events_pushed_one_by_one_leave_what_the_feature_stage_makes_of_them(bench):
    rows = one_world(log(3, rows=80)).sort_values(["at", "impression_id"], ignore_index=True)
    half = len(rows) // 2
    while rows["at"][half] == rows["at"][half - 1]:  # an instant is not cut
        half += 1
    expected = state(started(bench, rows))
    materialized = pd.Timestamp(rows["at"][half], unit="us", tz="UTC")
    bench.build(rows[:half])  # the second half is yet to come
    for name in VIEWS:
        assert pd.read_parquet(bench.views / f"{name}.parquet")["event_timestamp"].max() <= materialized
    (bench.folder / "data/04_feature/online_store.db").unlink()
    store = started(bench, rows[:half])
    assert state(store) != expected
    for row in rows[half:].itertuples():
        at = dt.datetime.fromtimestamp(row.at / 1e6, dt.UTC)
        record(bench.variant, store, Event(user=row.user, item=row.item, label=row.label, at=at))
    for got, want in zip(state(store), expected, strict=True):
        assert got["user_rate"] == pytest.approx(want["user_rate"], abs=1e-12)
        assert {**got, "user_rate": None} == {**want, "user_rate": None}


def test_a_new_user_has_a_history_after_the_first_click_and_counts_after_the_first_impression(bench):
    store = started(bench, one_world(log(3)))
    assert record(bench.variant, store, Event(user="eve", item="01", label=0, at=AT)) == ("user_counts",)
    later = AT + dt.timedelta(seconds=1)
    assert record(bench.variant, store, Event(user="eve", item="02", label=1, at=later)) == tuple(VIEWS)
    (eve,) = state(store, ["eve"])
    assert eve == {
        "user": "eve",
        "positives_film": [2],
        "positives_kind": ["love"],
        "positives_state": 1,
        "user_count": 2,
        "user_rate": pytest.approx((1 + 20 * PRIOR) / 22, abs=1e-12),
    }


def test_a_late_event_does_not_take_the_place_of_what_came_after_it(bench):
    store = started(bench, one_world(log(3)))
    record(bench.variant, store, Event(user="eve", item="02", label=1, at=AT))
    before = state(store, ["eve"])
    record(bench.variant, store, Event(user="eve", item="01", label=1, at=AT - dt.timedelta(hours=1)))
    assert state(store, ["eve"]) == before


def test_what_an_event_lacks_is_said(bench):
    store = started(bench, one_world(log(3)))
    with pytest.raises(DataError, match="label 2; it is 0 or 1"):
        record(bench.variant, store, Event(user="eve", item="01", label=2, at=AT))


def test_a_field_that_is_the_domain_and_so_no_feature_comes_with_the_event(tmp_path, monkeypatch):
    monkeypatch.setenv("MULTIDOMAIN_DATA", str(tmp_path / "data"))
    small_schema(tmp_path)
    text = (tmp_path / "small.yml").read_text().replace("place: {column: place,", "place: {column: kind,")
    (tmp_path / "small.yml").write_text(text)
    bench = Bench(tmp_path, schema.parse(tmp_path / "small.yml").variant())
    store = started(bench, one_world(log(3)))
    with pytest.raises(DataError, match=r"needs kind of item '02', which no online view has"):
        record(bench.variant, store, Event(user="eve", item="02", label=1, at=AT))
    record(bench.variant, store, Event(user="eve", item="02", label=1, at=AT, fields={"kind": "love"}))
    assert state(store, ["eve"])[0]["positives_kind"] == ["love"]
