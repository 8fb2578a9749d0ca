"""The cluster's online store, a real Redis, answers as the embedded one does."""

from __future__ import annotations

import datetime as dt
import itertools

import pandas as pd
import pytest
import redis_server
from feature_oracle import DAY, START
from small_ranker import SmallLog

from multidomain.errors import ConfigurationError
from multidomain.features import repository
from multidomain.features.materialize import materialize
from multidomain.features.views import views
from multidomain.io import connection
from multidomain.serving import Event, Ranker, Request, parity, record
from multidomain.serving.reads import OnlineReader

AT = dt.datetime.fromtimestamp((START + 2.5 * DAY) / 1e6, dt.UTC)
REDIS = "feature_repo/redis/feature_store.yaml"
ASKED = Request(user="ann@", domain="shop", items=["01", "03", "99"], context={"device": "phone", "price": 1.0})


@pytest.fixture(scope="module")
def redis(tmp_path_factory):
    with redis_server.running(tmp_path_factory.mktemp("redis")) as address:
        yield address


@pytest.fixture(scope="module")
def small(tmp_path_factory, redis):
    """The small log, registered with Feast over Redis, and loaded up to noon of its third day."""
    folder = tmp_path_factory.mktemp("small")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MULTIDOMAIN_DATA", str(folder / "data"))
        patch.setenv("MULTIDOMAIN_FEATURE_STORE", REDIS)
        patch.setenv("MULTIDOMAIN_REDIS", redis)
        made = SmallLog(folder)
        materialize(made.variant, until=AT)
        yield made


def ranker(small: SmallLog) -> Ranker:
    return Ranker(variant=small.variant, store=repository.service(small.variant)[0], scorer=small.scorer)


def test_features_are_read_from_redis_and_there_is_no_file(small):
    answer = ranker(small).rank(ASKED)
    assert answer.features["user_count"].to_pylist() == [answer.features["user_count"][0].as_py()] * 3
    assert answer.features["user_count"][0].as_py() > 0
    assert answer.missing == {"item_profile": 1}
    assert not list((small.folder / "data").rglob("online_store.db"))
    configured = repository.configuration(small.variant).read_text()
    assert "connection_string: $MULTIDOMAIN_REDIS" in configured  # no address, no password


def test_rows_are_those_of_feasts_own_call_and_come_in_one_round_trip(small, monkeypatch):
    store, _ = repository.service(small.variant)
    online, trips = store._get_provider().online_store, []
    read = online._read_hash_fields
    monkeypatch.setattr(online, "_read_hash_fields", lambda *given: trips.append(given[1]) or read(*given))
    planned = [view for view in views(small.variant) if "domain" not in view.keys]
    features = {view.name: [column.name for column in view.columns] for view in planned}
    reader = OnlineReader(store=store, views=planned, features=[*itertools.chain(*features.values())])
    asked = {("user",): [("ann@",), ("nobody",)], ("item",): [("99",), ("01",), ("none such",)]}
    found = reader.rows(asked)
    assert [len(commands) for commands in trips] == [5]  # a key's views lie together
    for names, keys in asked.items():
        wanted = [f"{view.name}:{name}" for view in planned if view.keys == names for name in features[view.name]]
        raw = store.get_online_features(wanted, [dict(zip(names, key, strict=True)) for key in keys]).to_dict()
        assert found[names] == list(zip(*(raw[name.split(":")[1]] for name in wanted), strict=True))


def test_every_feature_and_score_is_the_same_at_every_moment(small):
    before = keys(small)
    found = parity.measure(small.variant, connection().read_parquet(str(small.frame)), small.scorer, moments=3, rows=60)
    assert (found.features["equal"] == found.rows).all(), found.features.to_string()
    assert found.score_difference == 0.0
    assert keys(small) == before  # what the check wrote is gone, and nothing else


def keys(small: SmallLog) -> set[bytes]:
    store, _ = repository.service(small.variant)
    client = store._get_provider().online_store._get_client(store.config.online_store)
    return set(client.keys())


def test_a_late_value_never_takes_the_place_of_a_newer_one(small):
    store, _ = repository.service(small.variant)
    for hours, value, expected in ((0, 1, 1), (-1, 2, 1), (1, 3, 3)):
        rows = {"user": ["eve"], "user_count": [value], "user_rate": [0.5]}
        at = AT + dt.timedelta(hours=hours)
        store.write_to_online_store("user_counts", pd.DataFrame({**rows, "event_timestamp": [at]}))
        found = store.get_online_features(["user_counts:user_count"], [{"user": "eve"}]).to_dict()
        assert found["user_count"] == [expected]


def test_a_click_changes_the_history_of_the_next_request(small):
    before = ranker(small).rank(ASKED).features["positives_film"][0].as_py()
    store, _ = repository.service(small.variant)
    record(small.variant, store, Event(user="ann@", item="03", label=1, at=AT + dt.timedelta(minutes=1)))
    assert ranker(small).rank(ASKED).features["positives_film"][0].as_py() == [*before, 3][-3:]


def test_without_an_address_the_variable_is_named(small, monkeypatch):
    monkeypatch.delenv("MULTIDOMAIN_REDIS")
    with pytest.raises(ConfigurationError, match="needs the environment variable MULTIDOMAIN_REDIS"):
        repository.service(small.variant)
