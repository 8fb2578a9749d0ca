"""The as-of store row by row against plain SQL: mapped names, missing keys and times, several and on-demand views."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from asof_oracle import picked
from asof_store import BASE, opened
from feast import Entity, FeatureService, FeatureView, Field, FileSource, RequestSource
from feast.on_demand_feature_view import on_demand_feature_view
from feast.types import Array, Float64, Int64, String
from feast.value_type import ValueType
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

TTL = 2_000_000
RENAMED = {"uid": "user", "happened": "at", "wrote": "made", "raw": "value"}
FILE = pa.schema(
    [
        ("uid", pa.int64()),
        ("place", pa.string()),
        ("happened", pa.timestamp("us", "UTC")),
        ("wrote", pa.timestamp("us", "UTC")),
        ("raw", pa.int64()),
        ("words", pa.list_(pa.string())),
        ("score", pa.float64()),
        ("tag", pa.string()),
    ]
)
VIEWS = {  # keys in the file and in the question, time to live, whether the creation time decides ties, features
    "of_user": ([("uid", "user")], None, True, {"value": "raw", "words": "words"}),
    "of_pair": ([("uid", "user"), ("place", "place")], TTL, True, {"score": "score"}),
    "of_place": ([("place", "place")], TTL, False, {"tag": "tag"}),
}
ASKED = ("scaled", "seen", "total")


class Store:
    """A registered store, online and offline ours, whose one Parquet file can be rewritten."""

    def __init__(self, folder):
        self.path = folder / "features.parquet"
        self.write(rows_of([(0, "a", 0, 0)]))
        self.feast = opened(
            folder,
            offline="multidomain.features.asof.AsofOfflineStore",
            engine="multidomain.features.engine.ArrowEngine",
        )
        entities = {
            "user": Entity(name="user", join_keys=["user"], value_type=ValueType.INT64),
            "place": Entity(name="place", join_keys=["place"], value_type=ValueType.STRING),
        }
        types = {
            "value": Int64,
            "words": Array(String),
            "score": Float64,
            "tag": String,
            "user": Int64,
            "place": String,
        }
        made = {}
        for name, (keys, ttl, created, features) in VIEWS.items():
            made[name] = FeatureView(
                name=name,
                entities=[entities[key] for _, key in keys],
                schema=[Field(name=n, dtype=types[n]) for n in (*(key for _, key in keys), *features)],
                ttl=timedelta(microseconds=ttl or 0),
                source=FileSource(
                    name=f"{name}_source",
                    path=str(self.path),
                    timestamp_field="at",
                    created_timestamp_column="made" if created else "",
                    field_mapping=RENAMED,
                ),
            )
        request = RequestSource(
            name="request", schema=[Field(name="factor", dtype=Int64), Field(name="word", dtype=String)]
        )

        @on_demand_feature_view(
            sources=[made["of_user"], made["of_pair"], request],
            schema=[
                Field(name="scaled", dtype=Float64),
                Field(name="seen", dtype=Int64),
                Field(name="total", dtype=Float64),
            ],
            mode="pandas",
        )
        def asked(inputs: pd.DataFrame) -> pd.DataFrame:
            value, score = inputs["value"].astype("float64"), inputs["score"].astype("float64")
            lists = [[] if words is None else list(words) for words in inputs["words"]]
            return pd.DataFrame(
                {
                    "scaled": value * inputs["factor"],
                    "seen": [words.count(word) for words, word in zip(lists, inputs["word"], strict=True)],
                    "total": value + score,
                }
            )

        service = FeatureService(name="everything", features=[*made.values(), asked])
        self.feast.apply([*entities.values(), *made.values(), asked, service])
        self.service = self.feast.get_feature_service("everything")

    def write(self, rows, schema=FILE):
        self.rows = rows
        columns = {field.name: [row[field.name] for row in rows] for field in FILE}
        for name in ("happened", "wrote"):
            columns[name] = pa.array([None if t is None else BASE + t for t in columns[name]], FILE.field(name).type)
        pq.write_table(pa.table(columns, schema=FILE).cast(schema), self.path, row_group_size=3)

    def ask(self, entities, **options):
        return self.feast.get_historical_features(features=self.service, entity_df=entities, **options).to_arrow()


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return Store(tmp_path_factory.mktemp("odd"))


def rows_of(drawn):
    """Feature rows from (user, place, time, creation time); each carries its own number, some carry nulls."""
    return [
        {
            "uid": user,
            "place": place,
            "happened": at,
            "wrote": made,
            "raw": i,
            "words": None if i % 5 == 4 else ["x", f"w{i}"][: i % 3],
            "score": None if i % 4 == 3 else i / 8,
            "tag": None if i % 6 == 5 else f"t{i}",
        }
        for i, (user, place, at, made) in enumerate(drawn)
    ]


def questions(drawn):
    """Entity rows from (user, place, time, factor, word)."""
    return [
        {"impression_id": 100 + i, "user": u, "place": p, "at": t, "factor": f, "word": w}
        for i, (u, p, t, f, w) in enumerate(drawn)
    ]


def entities(asked):
    def column(name, kind):
        return pa.array([row[name] for row in asked], kind)

    times = [None if row["at"] is None else BASE + row["at"] for row in asked]
    return pa.table(
        {
            "word": column("word", pa.string()),
            "impression_id": column("impression_id", pa.int64()),
            "user": column("user", pa.int64()),
            "place": column("place", pa.string()),
            "event_timestamp": pa.array(times, pa.timestamp("us", "UTC")),
            "factor": column("factor", pa.int64()),
        }
    )


def by_sql(rows, asked):
    """Every feature of every question, the on-demand ones worked out from what SQL picked."""
    found = [{} for _ in asked]
    for keys, ttl, created, features in VIEWS.values():
        numbers = picked(rows, asked, keys, at=("happened", "at"), ttl=ttl, made="wrote" if created else None)
        for row, number in zip(found, numbers, strict=True):
            row.update({name: None if number is None else rows[number][raw] for name, raw in features.items()})
    for row, question in zip(found, asked, strict=True):
        row["scaled"] = None if row["value"] is None else float(row["value"] * question["factor"])
        row["seen"] = (row["words"] or []).count(question["word"])
        row["total"] = None if None in (row["value"], row["score"]) else row["value"] + row["score"]
    return found


def named(full):
    """Feature -> its column."""
    owner = {feature: view for view, (*_, features) in VIEWS.items() for feature in features}
    owner |= dict.fromkeys(ASKED, "asked")
    return {feature: f"{view}__{feature}" if full else feature for feature, view in owner.items()}


users, places = st.sampled_from([0, 0, 0, 1, None]), st.sampled_from(["a", "a", "a", "b", None])
times, made = st.sampled_from([0, 0, 1, 1_000_000, None]), st.sampled_from([0, 0, 1, None])
some = st.tuples(users, places, times, made)
feature_rows = st.one_of(st.lists(some, min_size=10, max_size=20), st.lists(some, max_size=3)).map(rows_of)
offsets = st.sampled_from([-1, 0, 1, TTL - 1, TTL, TTL + 1])
requests = st.tuples(st.integers(-2, 2), st.sampled_from(["x", "w1", "w4"]))


@st.composite
def cases(draw):
    """Feature rows, many of one key and time, and questions about their keys just before, in and after their time."""
    rows = draw(feature_rows)
    near = [(row["uid"], row["place"], row["happened"]) for row in rows if row["happened"] is not None]
    about = st.sampled_from(near or [(9, "z", 0)])
    close = st.tuples(about, offsets, requests).map(lambda d: (*d[0][:2], d[0][2] + d[1], *d[2]))
    other = st.tuples(users, places, st.sampled_from([None, 0, TTL]), requests).map(lambda d: (*d[:3], *d[3]))
    drawn = draw(st.lists(st.one_of(close, close, other), min_size=5, max_size=15))
    return rows, questions(drawn + drawn[:3])  # some twice


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(case=cases(), full=st.booleans())
def test_every_cell_equals_plain_sql(store, case, full):
    rows, asked = case
    store.write(rows)
    table = entities(asked)
    found = store.ask(table, full_feature_names=full)
    assert found.num_rows == table.num_rows
    assert found.select(table.column_names).equals(table), "what was asked is carried along, in its order"
    columns = named(full)
    assert sorted(found.column_names) == sorted([*table.column_names, *columns.values()])
    wanted = by_sql(rows, asked)
    for feature, column in columns.items():
        assert found[column].to_pylist() == [row[feature] for row in wanted], column


def test_a_missing_key_equals_no_key_however_often_it_is_asked_for(store):
    store.write(rows_of([(0, None, -1, None)] * 3))
    asked = questions([(0, None, -1, 0, "x"), (None, None, 0, 1, "x")] * 4)
    found = store.ask(entities(asked))
    assert found["score"].to_pylist() == [None] * 8
    assert found["tag"].to_pylist() == [None] * 8
    assert found["value"].to_pylist() == [2, None] * 4


def test_the_bound_of_a_ttl_is_the_last_microsecond_that_counts(store):
    store.write(rows_of([(0, "a", 0, 0)]))
    asked = questions([(0, "a", at, 1, "x") for at in (-1, 0, TTL, TTL + 1)])
    found = store.ask(entities(asked))
    assert found["score"].to_pylist() == [None, 0.0, 0.0, None]
    assert found["tag"].to_pylist() == [None, "t0", "t0", None]
    assert found["value"].to_pylist() == [None, 0, 0, 0]


def test_of_rows_with_one_key_and_time_the_one_created_last_counts_even_if_written_first(store):
    store.write(rows_of([(0, "a", 0, 3), (0, "a", 0, 1), (0, "a", 0, None)]))
    found = store.ask(entities(questions([(0, "a", 5, 1, "x")] * 2)))
    assert found["value"].to_pylist() == [0, 0]
    assert found["tag"].to_pylist() == ["t2", "t2"], "without a creation time the last in the file"


@pytest.mark.parametrize("unit", ["ms", "ns"])
@pytest.mark.parametrize("zone", [None, "UTC", "Asia/Tokyo"])
def test_times_of_any_unit_and_zone_are_the_same_moments(store, unit, zone):
    rows = rows_of([(0, "a", 0, 0), (0, "a", 1_000_000, 0), (1, "a", 1_001_000, None), (1, "b", None, 0)])
    asked = questions([(u, p, t, 1, "x") for u in (0, 1) for p in "ab" for t in (0, 999_000, 1_000_000, 1_001_000)])
    table, kind = entities(asked), pa.timestamp(unit, zone)
    changed = FILE.set(2, FILE.field(2).with_type(kind)).set(3, FILE.field(3).with_type(kind))
    store.write(rows, changed)
    at = table.column_names.index("event_timestamp")
    for question in (table, table.set_column(at, "event_timestamp", table["event_timestamp"].cast(kind))):
        found = store.ask(question)
        for feature, column in named(False).items():
            assert found[column].to_pylist() == [row[feature] for row in by_sql(rows, asked)], column


def test_keys_of_other_types_find_their_rows(store):
    rows = rows_of([(0, "a", 0, 0), (1, "b", 0, 0), (2, "a", 0, 0)])
    asked = questions([(u, p, 1, 1, "x") for u in (0, 1, 2) for p in "ab"])
    store.write(rows)
    table = entities(asked)
    for user, place in (
        (pa.int32(), pa.large_string()),
        (pa.uint8(), pa.dictionary(pa.int32(), pa.string())),
        (pa.float64(), pa.string_view()),
    ):
        typed = table.set_column(2, "user", table["user"].cast(user)).set_column(3, "place", table["place"].cast(place))
        found = store.ask(typed)
        for feature, column in named(False).items():
            assert found[column].to_pylist() == [row[feature] for row in by_sql(rows, asked)], column


def test_a_pandas_frame_with_missing_keys_and_categories_loses_no_row(store):
    rows = rows_of([(0, "a", 0, 0), (1, "b", 0, 0)])
    asked = questions([(0, "a", 1, 1, "x"), (None, "b", 1, 1, "x"), (1, None, 1, 1, "x"), (1, "b", None, 1, "x")])
    store.write(rows)
    frame = entities(asked).to_pandas().astype({"place": "category"})  # the user's column is one of floats now
    found = store.ask(frame)
    assert found["impression_id"].to_pylist() == [100, 101, 102, 103]
    for feature, column in named(False).items():
        assert found[column].to_pylist() == [row[feature] for row in by_sql(rows, asked)], column


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("seed", [0, 1])
def test_on_demand_views_are_the_same_by_request_as_in_the_join(tmp_path, seed, full):
    """Loaded up to a time, and those with a ttl from one ttl before it, the online store knows what the join knows."""
    store, draw, now = Store(tmp_path), np.random.default_rng(seed), 4_000_001
    user, place, at = draw.integers(0, 3, 60), draw.choice(["a", "b"], 60), draw.integers(0, 6, 60) * 1_000_000
    off, made = draw.integers(-1, 2, 60), draw.integers(0, 3, 60) * 1_000_000
    rows = rows_of(zip(user.tolist(), place.tolist(), (at + off).tolist(), made.tolist(), strict=True))
    store.write(rows)
    asked = questions([(u, p, now, f, w) for u in (0, 1, 2, 9) for p in "abz" for f, w in ((2, "x"), (-1, "w1"))])
    for name, (_, ttl, _, _) in VIEWS.items():
        store.feast.materialize(moment(0 if ttl is None else BASE + now - ttl), moment(BASE + now), [name])
    request = [{key: row[key] for key in ("user", "place", "factor", "word")} for row in asked]
    online = store.feast.get_online_features(store.service, request, full_feature_names=full).to_dict()
    offline = store.ask(entities(asked), full_feature_names=full).to_pydict()
    wanted = by_sql(rows, asked)
    for feature, column in named(full).items():
        assert offline[column] == [row[feature] for row in wanted], column
        assert [no_nan(value) for value in online[column]] == offline[column], column


def moment(microseconds):
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=microseconds)


def no_nan(value):
    """A number that an on-demand view could not compute is NaN online and null in the join."""
    return None if isinstance(value, float) and math.isnan(value) else value
