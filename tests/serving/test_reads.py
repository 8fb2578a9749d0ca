"""Rows read straight from the online store are those of Feast's own call; a cache of them forgets in time."""

from __future__ import annotations

import dataclasses
import datetime as dt
import itertools
import threading
from typing import Any

import pandas as pd
import pytest
from feast.infra.key_encoding_utils import serialize_entity_key
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value
from feature_oracle import DAY, START
from hypothesis import given, settings
from hypothesis import strategies as st
from small_ranker import SmallLog, loaded

from multidomain.errors import ConfigurationError, DataError
from multidomain.features import repository
from multidomain.features.online import GuardedSqliteOnlineStore
from multidomain.features.rows import entity_bytes
from multidomain.features.views import Column, View, views
from multidomain.serving import Event, Ranker, Request, RowCache, record
from multidomain.serving.reads import OnlineReader

AT = dt.datetime.fromtimestamp((START + 2.5 * DAY) / 1e6, dt.UTC)
VALUES = {"user": ["ann@", "bob@", "dan@", "nobody"], "item": ["01", "02", "03", "none such"], "domain": ["home", "?"]}
ASKED = Request(user="ann@", domain="shop", items=["01", "03"], context={"device": "phone", "price": 1.0})


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """The small log, registered with Feast and loaded up to noon of its third day."""
    with loaded(tmp_path_factory.mktemp("reads"), AT) as made:
        yield made


class Clock:
    """Seconds that pass when told."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def reader(small: SmallLog, store: Any = None, **given: Any) -> OnlineReader:
    store = store or repository.service(small.variant)[0]
    features = [column.name for view in views(small.variant) for column in view.columns]
    return OnlineReader(**{"store": store, "views": views(small.variant), "features": features, **given})


def raw(store: Any, view: View, keys: list[tuple[str, ...]]) -> list[tuple[Any, ...]]:
    """Feast's own answer."""
    names = [column.name for column in view.columns]
    rows = [dict(zip(view.keys, key, strict=True)) for key in keys]
    found = store.get_online_features([f"{view.name}:{name}" for name in names], rows).to_dict()
    return list(zip(*(found[name] for name in names), strict=True))


def keys_of(names: tuple[str, ...]) -> list[tuple[str, ...]]:
    return list(itertools.product(*(VALUES[name] for name in names)))


@pytest.mark.parametrize("way", ["the store's own", "by view"])
def test_rows_are_those_of_feasts_own_call_for_keys_that_are_there_and_that_are_not(small, way, monkeypatch):
    store, _ = repository.service(small.variant)
    if way == "by view":  # as of a store that has nothing but what every online store has
        monkeypatch.delattr(GuardedSqliteOnlineStore, "read_rows")
    ours = reader(small, store)
    asked = {names: keys_of(names) for names in ours.columns}
    found = ours.rows(asked)
    assert set(asked) == {("user",), ("item",), ("domain",), ("user", "domain"), ("item", "domain")}
    for names, keys in asked.items():
        expected = [raw(store, view, keys) for view in views(small.variant) if view.keys == names]
        assert found[names] == [sum(rows, ()) for rows in zip(*expected, strict=True)], names
    kinds = {type(cell) for rows in found.values() for row in rows for cell in row}
    assert kinds == {type(None), int, float, str, list}


@settings(max_examples=25, deadline=None)
@given(st.lists(st.sampled_from([*VALUES["item"], "é", "", "01 "]), min_size=1, max_size=8, unique=True))
def test_rows_stand_in_the_order_of_their_keys(small, items):
    ours = reader(small)
    rows = ours.rows({("item",): [(item,) for item in items]})[("item",)]
    assert rows == [ours.rows({("item",): [(item,)]})[("item",)][0] for item in items]


NAMES = st.lists(st.sampled_from(["user", "item", "domain", "é"]), min_size=1, max_size=3, unique=True)


@given(NAMES.flatmap(lambda names: st.tuples(st.just(names), st.tuples(*[st.text()] * len(names)))))
def test_the_bytes_of_a_key_are_those_feast_makes(named):
    names, key = named
    message = EntityKey(join_keys=names, entity_values=[Value(string_val=part) for part in key])
    assert entity_bytes(names, [key, key]) == [serialize_entity_key(message, 3)] * 2


def test_what_is_there_in_part_is_none_where_it_is_not(small):
    store, _ = repository.service(small.variant)
    part = {"user": ["part"], "user_count": [3], "user_rate": [None], "event_timestamp": [AT]}
    store.write_to_online_store("user_counts", pd.DataFrame(part).astype({"user_rate": "float64"}))
    ours = reader(small, store, features=["user_count", "user_rate"])
    assert ours.rows({("user",): [("part",), ("nobody",)]}) == {("user",): [(3, None), (None, None)]}


def test_only_the_features_asked_for_are_read(small):
    planned = [view for view in views(small.variant) if view.name in ("user_counts", "user_profile")]
    ours = reader(small, views=planned, features={"user_rate", "person"})
    assert ours.columns == {("user",): {"user_profile": ("person",), "user_counts": ("user_rate",)}}
    assert len(ours.rows({("user",): [("ann@",)]})[("user",)][0]) == 2


def test_a_view_that_is_not_registered_is_named_with_what_to_do(small):
    other = View(name="item_mood", kind="daily", keys=("item",), columns=(), description="")
    with pytest.raises(DataError, match=r"no view 'item_mood'.*kedro run --nodes=apply_feature_repository"):
        reader(small, views=[other])


def test_a_feature_that_is_not_registered_is_named_with_its_view_and_what_to_do(small):
    planned = [view for view in views(small.variant) if view.name == "user_counts"]
    more = Column(name="user_mood", type="float")
    planned = [dataclasses.replace(planned[0], columns=(*planned[0].columns, more))]
    with pytest.raises(DataError, match=r"'user_counts' .* has no user_mood; it has user_count, user_rate.*kedro run"):
        reader(small, views=planned, features=["user_count", "user_mood"])


# --- the cache ---------------------------------------------------------------------------------------------------

PLACE = ("project", ("item",), (("item_profile", ("film",)),))


def test_a_row_is_used_until_its_seconds_have_passed_and_not_after():
    clock = Clock()
    cache = RowCache(seconds=10, rows=5, clock=clock)
    cache.keep(PLACE, {("01",): (1,)}, read=clock.now)
    clock.now += 9.999
    assert cache.find(PLACE, [("01",), ("02",)]) == {("01",): (1,)}
    clock.now += 0.001
    assert cache.find(PLACE, [("01",)]) == {}


def test_the_seconds_are_counted_from_when_the_row_was_asked_for(small, monkeypatch):
    clock, calls = Clock(), []
    ours = reader(small, cache=RowCache(seconds=10, rows=5, clock=clock))
    read = ours._read

    def slow(asked: Any) -> Any:
        calls.append(asked)
        clock.now += 4
        return read(asked)

    monkeypatch.setattr(ours, "_read", slow)
    item = {("item",): [("01",)]}
    ours.rows(item)
    clock.now += 5.9  # 9.9 seconds after it was asked for
    ours.rows(item)
    assert calls == [item, {("item",): []}]
    clock.now += 0.1
    ours.rows(item)
    assert calls[2:] == [item]


def test_the_row_read_longest_ago_makes_way_and_one_read_again_stays():
    cache = RowCache(seconds=10, rows=2, clock=Clock())
    for at, key in enumerate(["a", "b", "a", "c"]):
        cache.keep(PLACE, {(key,): (at,)}, read=100.0 + at)
    assert len(cache) == 2
    assert cache.find(PLACE, [("a",), ("b",), ("c",)]) == {("a",): (2,), ("c",): (3,)}


def test_a_row_asked_for_earlier_never_takes_the_place_of_one_asked_for_later():
    cache = RowCache(seconds=10, rows=2, clock=Clock())
    cache.keep(PLACE, {("a",): ("later",)}, read=100.0)
    cache.keep(PLACE, {("a",): ("earlier",)}, read=99.0)
    assert cache.find(PLACE, [("a",)]) == {("a",): ("later",)}


def test_rows_of_other_columns_views_and_projects_are_apart():
    cache = RowCache(seconds=10, rows=2, clock=Clock())
    cache.keep(PLACE, {("a",): (1,)}, read=100.0)
    features = (("item_profile", ("film", "year")),)
    for other in [("other", *PLACE[1:]), (PLACE[0], ("domain",), PLACE[2]), (*PLACE[:2], features)]:
        assert cache.find(other, [("a",)]) == {}


@pytest.mark.parametrize(
    "given", [{"seconds": 0, "rows": 1}, {"seconds": float("nan"), "rows": 1}, {"seconds": 1, "rows": 0}]
)
def test_a_cache_that_could_keep_nothing_is_refused(given):
    with pytest.raises(ConfigurationError, match="seconds must be above 0 and rows at least 1"):
        RowCache(**given)


@pytest.fixture
def counted(small, monkeypatch):
    """A ranker with a cache of ten seconds, its clock, and how many keys of each view it asked the store for."""
    clock, store = Clock(), repository.service(small.variant)[0]
    ranker = Ranker(
        variant=small.variant, store=store, scorer=small.scorer, cache=RowCache(seconds=10, rows=100, clock=clock)
    )
    asked: dict[tuple[str, ...], int] = {}
    read = ranker._reader._read

    def counting(keys: Any) -> Any:
        asked.update({names: len(found) for names, found in keys.items()})
        return read(keys)

    monkeypatch.setattr(ranker._reader, "_read", counting)
    return ranker, clock, asked


def test_a_request_with_a_cache_is_answered_alike_and_reads_users_alone(small, counted):
    ranker, _, asked = counted
    plain = Ranker(variant=small.variant, store=ranker._store, scorer=small.scorer)
    for items, new in ((["01", "none such"], 2), (["none such", "01", "02"], 1)):
        request = Request(user="ann@", domain="shop", items=items, context=ASKED.context)
        answer, expected = ranker.rank(request), plain.rank(request)
        assert answer.features.equals(expected.features)
        assert (answer.scores, answer.missing) == (expected.scores, expected.missing)
        assert asked == {
            ("user",): 1, ("user", "domain"): 1, ("item",): new, ("item", "domain"): new, ("domain",): new - 1,
        }  # fmt: skip


def test_a_new_value_of_an_item_is_seen_once_the_seconds_have_passed(small, counted):
    ranker, clock, _ = counted
    before = ranker.rank(ASKED).features["item_count"].to_pylist()
    newer = {"item": ["01"], "item_count": [10**6], "item_rate": [0.5], "event_timestamp": [AT + dt.timedelta(days=9)]}
    ranker._store.write_to_online_store("item_counts", pd.DataFrame(newer))
    clock.now += 9.9
    assert ranker.rank(ASKED).features["item_count"].to_pylist() == before
    clock.now += 0.1
    assert ranker.rank(ASKED).features["item_count"].to_pylist() == [10**6, before[1]]


def test_a_click_is_seen_by_the_next_request_whatever_is_kept(small, counted):
    ranker, _, _ = counted
    before = ranker.rank(ASKED).features["positives_film"][0].as_py()
    record(small.variant, ranker._store, Event(user="ann@", item="03", label=1, at=AT + dt.timedelta(minutes=1)))
    assert ranker.rank(ASKED).features["positives_film"][0].as_py() == [*before, 3][-3:]


def test_rankers_in_threads_that_share_a_cache_answer_alike(small):
    cache = RowCache(seconds=60, rows=100)
    request = Request(user="bob@", domain="home", items=["01", "none such", "02"], context=ASKED.context)
    expected = Ranker(variant=small.variant, store=repository.service(small.variant)[0], scorer=small.scorer).rank(
        request
    )
    answers: list[Any] = []

    def work() -> None:
        store, _ = repository.service(small.variant)
        ranker = Ranker(variant=small.variant, store=store, scorer=small.scorer, cache=cache)
        answers.extend(ranker.rank(request) for _ in range(10))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 40
    assert {(answer.items, answer.scores) for answer in answers} == {(expected.items, expected.scores)}


def test_threads_that_share_a_cache_find_what_was_kept_and_no_more_rows_than_allowed():
    cache = RowCache(seconds=60, rows=50)
    wrong: list[Any] = []

    def work(number: int) -> None:
        for i in range(400):
            keys = [(str(j),) for j in range((number * 31 + i) % 90, (number * 31 + i) % 90 + 20)]
            found = cache.find(PLACE, keys)
            wrong.extend(pair for pair in found.items() if pair[1] != pair[0])
            cache.keep(PLACE, {key: key for key in keys if key not in found}, read=cache.clock())

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert 20 <= len(cache) <= 50
