"""What the online store holds after materializing is what an impression at that time would have seen."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from feature_oracle import DAY, START, Bench, log, one_world, small_schema

from multidomain.errors import ConfigurationError
from multidomain.features import repository
from multidomain.features.materialize import materialize

USERS, ITEMS, DOMAINS = ["ann@", "bob@", "dan@", "nobody"], ["01", "02", "99"], ["home", "shop"]
AT = dt.datetime.fromtimestamp((START + 2.5 * DAY) / 1e6, dt.UTC)  # on the third of the log's five days


@pytest.fixture
def bench(tmp_path, data_root):
    made = Bench(tmp_path, small_schema(tmp_path).variant())
    made.build(one_world(log(5, rows=200)))
    repository.apply(made.variant, made.views)
    return made


def asked() -> list[dict[str, str]]:
    return [{"user": u, "item": i, "domain": d} for u in USERS for i in ITEMS for d in DOMAINS]


def online(bench: Bench) -> list[dict[str, Any]]:
    store, service = repository.service(bench.variant)
    return pa.Table.from_pydict(store.get_online_features(service, asked()).to_dict()).to_pylist()


def offline(bench: Bench, at: dt.datetime) -> list[dict[str, Any]]:
    store, service = repository.service(bench.variant)
    entities = pa.Table.from_pylist([{**row, "event_timestamp": at} for row in asked()])
    found = store.get_historical_features(features=service, entity_df=entities).to_arrow()
    return found.drop_columns(["event_timestamp"]).to_pylist()


def features(rows: list[dict[str, Any]]) -> list[list[tuple[str, Any]]]:
    return [sorted(row.items()) for row in rows]


@pytest.mark.parametrize("at", [AT, AT + dt.timedelta(days=400)], ids=["amid the log", "after it"])
def test_every_feature_is_that_of_the_point_in_time_join(bench, at):
    materialize(bench.variant, until=at)
    assert features(online(bench)) == features(offline(bench, at))
    assert any(row["user_count"] for row in online(bench))
    assert any(row["positives_film"] for row in online(bench))
    assert any(row["tags"] == [] for row in online(bench))
    assert any(row["film"] for row in online(bench))


def test_loading_on_from_the_last_success_gives_what_loading_everything_gives(bench):
    for hours in (0, 7, 30):
        materialize(bench.variant, until=AT + dt.timedelta(hours=hours))
    assert features(online(bench)) == features(offline(bench, AT + dt.timedelta(hours=30)))


def test_the_registry_remembers_how_far_a_view_was_loaded_and_profiles_are_loaded_whole(bench):
    first = materialize(bench.variant, until=AT)["views"]
    again = materialize(bench.variant, until=AT + dt.timedelta(days=1))["views"]
    assert {view["from"] for view in first.values()} == {"1970-01-01T00:00:00+00:00"}
    assert again["user_counts"]["from"] == first["user_counts"]["to"] == AT.isoformat()
    assert again["user_profile"]["from"] == first["user_profile"]["from"]
    back = materialize(bench.variant, until=AT - dt.timedelta(days=1))["views"]
    assert not back["user_counts"]["loaded"]
    assert back["user_profile"]["loaded"]
    whole = materialize(bench.variant, until=AT, full=True)["views"]
    assert whole["user_counts"]["from"] == "1970-01-01T00:00:00+00:00"


def test_loading_an_earlier_time_again_leaves_newer_values(bench):
    materialize(bench.variant, until=AT + dt.timedelta(days=1))
    before = online(bench)
    materialize(bench.variant, until=AT - dt.timedelta(days=1), full=True)
    assert features(online(bench)) == features(before)


def test_a_time_before_the_first_feature_is_refused(bench):
    with pytest.raises(ConfigurationError, match="before 1970"):
        materialize(bench.variant, until=dt.datetime(1960, 1, 1))


def write(store: Any, at: dt.datetime, count: int) -> None:
    rows = {"user": ["eve"], "user_count": [count], "user_rate": [0.5], "event_timestamp": [at]}
    store.write_to_online_store("user_counts", pd.DataFrame(rows))


def count(store: Any) -> int:
    return store.get_online_features(["user_counts:user_count"], [{"user": "eve"}]).to_dict()["user_count"][0]


def test_a_late_value_never_takes_the_place_of_a_newer_one(bench):
    store, _ = repository.service(bench.variant)
    microsecond = dt.timedelta(microseconds=1)
    for at, value, expected in [
        (AT, 1, 1),
        (AT - dt.timedelta(hours=1), 2, 1),
        (AT - microsecond, 3, 1),  # within the same second
        (AT, 4, 4),  # a correction of the same instant
        (AT + microsecond, 5, 5),
    ]:
        write(store, at, value)
        assert count(store) == expected


def test_within_one_batch_the_latest_counts_in_whatever_order(bench):
    store, _ = repository.service(bench.variant)
    times = [AT + dt.timedelta(seconds=s) for s in (3, 1, 2)]
    rows = {"user": ["eve"] * 3, "user_count": [3, 1, 2], "user_rate": [0.5] * 3, "event_timestamp": times}
    store.write_to_online_store("user_counts", pd.DataFrame(rows))
    assert count(store) == 3


def test_whole_numbers_beyond_those_a_float_can_hold_stay_whole(bench):
    known = {"user": "eve", "user_count": 2**53 + 1, "user_rate": 0.5, "event_timestamp": AT}
    table = pa.Table.from_pylist([known, {"user": "kim", "event_timestamp": AT}])
    schema = pq.read_schema(bench.views / "user_counts.parquet")
    pq.write_table(table.select(schema.names).cast(schema), bench.views / "user_counts.parquet")
    materialize(bench.variant, until=AT)
    store, _ = repository.service(bench.variant)
    assert count(store) == 2**53 + 1
