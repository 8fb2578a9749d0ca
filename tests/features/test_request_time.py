"""Features of the moment of a request: the same for a training row and for a request, and nothing of them is stored."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from feature_oracle import Bench, log, small_schema

from multidomain import schema
from multidomain.features import repository
from multidomain.features.request_time import MADE, TIME


def moment(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * 1_000_000


@pytest.mark.parametrize(
    ("text", "hour", "weekday"),
    [
        ("1970-01-01T00:00:00", 0, 3),  # a Thursday
        ("2024-02-29T23:59:59", 23, 3),
        ("2026-11-22T12:00:00", 12, 6),  # a Sunday
        ("1969-12-31T23:00:00", 23, 2),
    ],
)
def test_hour_and_weekday_are_those_of_the_calendar(text: str, hour: int, weekday: int) -> None:
    inputs = {TIME: [moment(text)]}
    assert (MADE["hour"](inputs), MADE["weekday"](inputs)) == ({"hour": [hour]}, {"weekday": [weekday]})


@pytest.fixture
def bench(tmp_path, data_root):
    made = Bench(tmp_path, small_schema(tmp_path, request="[hour, weekday]").variant())
    made.build(log(1, rows=40))
    return made


def test_training_rows_have_the_hour_and_weekday_of_their_impression(bench) -> None:
    rows = log(1, rows=40)
    frame = bench.join(rows)
    for row in rows.itertuples():
        at = datetime.fromtimestamp(row.at / 1_000_000, UTC)
        found = frame.loc[row.impression_id]
        assert (found["hour"], found["weekday"]) == (at.hour, at.weekday())


def test_an_online_read_makes_them_of_the_time_that_the_request_gives(bench) -> None:
    repository.apply(bench.variant, bench.views)
    store, service = repository.service(bench.variant)
    assert {view.name for view in service.feature_view_projections} >= {"request_hour", "request_weekday"}
    found = store.get_online_features(
        features=["request_hour:hour", "request_weekday:weekday"],
        entity_rows=[{TIME: moment(text)} for text in ("2024-02-29T23:59:59", "2026-11-22T12:00:00")],
    ).to_dict()
    assert (found["hour"], found["weekday"]) == ([23, 12], [3, 6])


def test_registering_them_twice_changes_nothing_and_leaving_them_out_removes_them(bench, tmp_path) -> None:
    registry = Path(repository.apply(bench.variant, bench.views)["registry"])
    before = registry.read_bytes()
    repository.apply(bench.variant, bench.views)
    assert registry.read_bytes() == before
    view = repository.store(bench.variant).get_on_demand_feature_view("request_hour")
    assert view.description
    assert view.tags["event_time"] == "the request's own"
    repository.apply(small_schema(tmp_path).variant(), bench.views)
    assert repository.store(bench.variant).list_on_demand_feature_views() == []


def test_a_variant_of_nothing_but_the_requests_time_is_joined_too(tmp_path, data_root) -> None:
    path = small_schema(tmp_path, counts="[]", request="[hour]").path
    text = path.read_text().replace("profile: {history: false,", "clock: {features: [device], history: false,")
    path.write_text(text)
    bench = Bench(tmp_path, schema.parse(path).variant(features="clock"))
    frame = bench.frame(log(2, rows=20))
    assert set(frame["hour"]) <= set(range(24))
    assert len(frame) == 20
