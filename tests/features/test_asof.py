"""The as-of store against plain SQL and pandas.merge_asof."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from asof_store import BASE, TTL, AsofStore, as_table, entities
from feast import FileSource
from feast.errors import EntityTimestampInferenceException
from feast.infra.offline_stores.file_source import SavedDatasetFileStorage
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from multidomain.features import stored


class Store(AsofStore):
    """A registered store whose one Parquet file can be rewritten."""

    offline = "multidomain.features.asof.AsofOfflineStore"
    engine = "multidomain.features.engine.ArrowEngine"

    def source(self, **options):
        return FileSource(**options)

    def write(self, rows):
        pq.write_table(as_table(rows), self.path, row_group_size=3)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return Store(tmp_path_factory.mktemp("asof"))


def by_sql(path, asked, keys, *, ttl=None, created=True, by_created=False):
    """The number of the latest row that is early enough, row by row. Ties: created last, then last in the file."""
    con = duckdb.connect()
    con.execute("SET TimeZone = 'UTC'")
    con.register("asked", asked.append_column("n", pa.array(range(asked.num_rows))))
    con.execute(f"CREATE TABLE f AS SELECT *, row_number() OVER () AS r FROM read_parquet('{path}')")
    on = [f"f.{key} = asked.{key}" for key in keys] + ["f.at <= asked.event_timestamp"]
    on += [f"f.at + INTERVAL {ttl} MICROSECONDS >= asked.event_timestamp"] if ttl else []
    on += ["f.made <= asked.event_timestamp"] if by_created else []
    order = ["f.at DESC", *(["f.made DESC NULLS LAST"] if created else []), "f.r DESC"]
    query = f"""SELECT pick.raw FROM asked LEFT JOIN (
        SELECT asked.n, f.raw, row_number() OVER (PARTITION BY asked.n ORDER BY {", ".join(order)}) AS place
        FROM asked JOIN f ON {" AND ".join(on)}) pick ON pick.n = asked.n AND pick.place = 1 ORDER BY asked.n"""
    return [value for (value,) in con.execute(query).fetchall()]


seconds = st.integers(0, 8).map(lambda t: t * 1_000_000)
feature_rows = st.lists(
    st.tuples(st.integers(0, 2), st.sampled_from("ab"), seconds, st.one_of(st.none(), seconds)), min_size=0, max_size=25
).map(lambda rows: [(*row, i, [f"w{i}"] * (i % 3)) for i, row in enumerate(rows)])
entity_rows = st.lists(
    st.tuples(st.integers(0, 3), st.sampled_from("abc"), st.integers(-1, 12).map(lambda t: t * 1_000_000)),
    min_size=1,
    max_size=25,
).map(lambda rows: rows + rows[:2])  # some rows twice


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(features=feature_rows, asked=entity_rows)
def test_every_row_equals_plain_sql(store, features, asked):
    store.write(features)
    table = entities(asked)
    refs = [f"{name}:{column}" for name in ("plain", "created", "fresh", "pair") for column in ("value", "words")]
    found = store.ask(table, refs, full_feature_names=True).to_arrow()
    assert found.select(table.column_names).equals(table)
    for name, keys, options in (
        ("plain", ["k"], {"created": False}),
        ("created", ["k"], {}),
        ("fresh", ["k"], {"ttl": TTL}),
        ("pair", ["k", "name"], {}),
    ):
        wanted = by_sql(store.path, table, keys, **options)
        assert found[f"{name}__value"].to_pylist() == wanted, name
        words = [None if i is None else [f"w{i}"] * (i % 3) for i in wanted]
        assert found[f"{name}__words"].to_pylist() == words, "the payload belongs to another row"
    late = store.ask(table, ["fresh:value"], filter_by_created_timestamp=True).to_arrow()
    assert late["value"].to_pylist() == by_sql(store.path, table, ["k"], ttl=TTL, by_created=True)


def test_a_thousand_random_rows_equal_merge_asof(store):
    draw = np.random.default_rng(0)
    times = draw.choice(10**9, 3000, replace=False)
    store.write(
        [
            (int(k), "a", int(t), 0, i, [str(i)])
            for i, (k, t) in enumerate(zip(draw.integers(0, 5, 3000), times, strict=True))
        ]
    )
    asked = entities(
        [(int(k), "a", int(t)) for k, t in zip(draw.integers(0, 6, 1000), draw.integers(0, 10**9, 1000), strict=True)]
    )
    found = store.ask(asked, ["plain:value"]).to_arrow()
    left = asked.to_pandas().sort_values("event_timestamp")
    right = pq.read_table(store.path).to_pandas().sort_values("at")
    merged = pd.merge_asof(left, right, left_on="event_timestamp", right_on="at", by="k").sort_values("impression_id")
    assert found["value"].to_pandas().equals(merged["raw"].reset_index(drop=True))


def test_gathering_crosses_pieces_and_row_groups(store, monkeypatch):
    monkeypatch.setattr(stored, "PIECE", 7)
    store.write([(i % 3, "a", i * 1000, 0, i, [f"w{i}"]) for i in range(40)])
    asked = entities([(i % 4, "a", (i * 7919) % 41_000) for i in range(60)])
    found = store.ask(asked, ["plain:value", "plain:words"]).to_arrow()
    wanted = by_sql(store.path, asked, ["k"], created=False)
    assert found["value"].to_pylist() == wanted
    assert found["words"].to_pylist() == [None if i is None else [f"w{i}"] for i in wanted]


def test_types_survive_where_rows_are_missing(store):
    store.write([(0, "a", 5, 0, 2**60 + 1, ["x"])])
    found = store.ask(entities([(0, "a", 5), (0, "a", 4), (9, "a", 9)]), ["plain:value", "plain:words"]).to_arrow()
    assert found.schema.field("value").type == pa.int64()
    assert found.schema.field("impression_id").type == pa.int64()
    assert found["value"].to_pylist() == [2**60 + 1, None, None]
    assert pa.types.is_list(found.schema.field("words").type)


def test_pandas_frames_with_any_clock_and_index(store):
    store.write([(0, "a", 0, 0, 7, ["x"])])
    zone = datetime.fromtimestamp(BASE / 1e6, UTC)
    frame = pd.DataFrame({"k": [0, 0], "event_timestamp": [zone, zone - timedelta(microseconds=1)]}, index=[5, 5])
    naive = frame.assign(event_timestamp=frame["event_timestamp"].dt.tz_localize(None))
    eastern = frame.assign(event_timestamp=frame["event_timestamp"].dt.tz_convert("America/New_York"))
    for asked in (frame, naive, eastern):
        assert store.ask(asked, ["plain:value"]).to_df()["value"].fillna(-1).tolist() == [7, -1]


def test_rows_without_key_or_time_stay_and_get_nulls(store):
    store.write([(0, "a", 0, 0, 7, ["x"])])
    asked = entities([(None, "a", 5), (0, "a", None), (0, "a", 5)])
    assert store.ask(asked, ["plain:value"]).to_arrow()["value"].to_pylist() == [None, None, 7]


def test_no_entity_rows_at_all(store):
    found = store.ask(entities([(0, "a", 0)]).slice(0, 0), ["plain:value", "plain:words"]).to_arrow()
    assert found.num_rows == 0
    assert found.column_names[-2:] == ["value", "words"]


def test_an_unbounded_ttl_and_an_exact_one(store):
    store.write([(0, "a", 0, 0, 1, [])])
    asked = entities([(0, "a", TTL), (0, "a", TTL + 1)])
    found = store.ask(asked, ["fresh:value", "plain:value"], full_feature_names=True).to_arrow()
    assert found["fresh__value"].to_pylist() == [1, None]  # the last microsecond still counts
    assert found["plain__value"].to_pylist() == [1, 1]


def test_on_demand_views_are_computed_on_top(store):
    store.write([(0, "a", 0, 0, 6, ["x"])])
    asked = entities([(0, "a", 1), (0, "a", 1)]).to_pandas().assign(factor=[2, 3])
    found = store.ask(asked, ["plain:value", "scaled:scaled"]).to_df()
    assert found["scaled"].tolist() == [12.0, 18.0]
    assert found["impression_id"].tolist() == [100, 101]
    full = store.ask(asked, ["scaled:scaled"], full_feature_names=True).to_df()
    assert full["scaled__scaled"].tolist() == [12.0, 18.0]


def test_join_keys_can_be_mapped_and_views_aliased(store):
    store.write([(0, "a", 0, 0, 1, []), (1, "a", 0, 0, 2, [])])
    view = store.views["plain"]
    asked = pa.table({"buyer": [0, 1], "seller": [1, 0], "event_timestamp": pa.array([BASE, BASE], pa.timestamp("us"))})
    features = [
        view.with_name("of_buyer").with_join_key_map({"k": "buyer"})[["value"]],
        view.with_name("of_seller").with_join_key_map({"k": "seller"})[["value"]],
    ]
    from feast import FeatureService

    service = FeatureService(name="both_sides", features=features)
    store.feast.apply([service])
    found = store.ask(asked, store.feast.get_feature_service("both_sides"), full_feature_names=True).to_arrow()
    assert found["of_buyer__value"].to_pylist() == [1, 2]
    assert found["of_seller__value"].to_pylist() == [2, 1]


def test_a_view_without_entities_is_known_by_time_alone(store):
    store.write([(0, "a", 0, 0, 1, []), (1, "b", 10, 0, 2, [])])
    found = store.ask(entities([(7, "z", -1), (7, "z", 9), (7, "z", 10)]), ["everywhere:value"]).to_arrow()
    assert found["value"].to_pylist() == [None, 1, 2]


def test_other_parquet_layouts_are_read_too(store, tmp_path):
    """A glob of files goes through Feast's own reader."""
    store.write([(0, "a", 0, 0, 1, ["x"])])
    (tmp_path / "part-1.parquet").write_bytes(store.path.read_bytes())
    store.write([(0, "a", 5, 0, 2, ["y"])])
    (tmp_path / "part-2.parquet").write_bytes(store.path.read_bytes())
    source = FileSource(name="parts", path=str(tmp_path / "part-*.parquet"), timestamp_field="at")
    rows = stored.source_rows(source, store.feast.config)
    assert isinstance(rows, stored._ArrowRows)
    assert rows.gather(np.array([1, -1, 0]), ["raw"])["raw"].to_pylist() == [2, None, 1]


def test_the_result_can_be_persisted(store, tmp_path):
    store.write([(0, "a", 0, 0, 1, ["x"])])
    job = store.ask(entities([(0, "a", 1)]), ["plain:value"])
    job.persist(SavedDatasetFileStorage(path=str(tmp_path / "saved.parquet")))
    assert pq.read_table(tmp_path / "saved.parquet")["value"].to_pylist() == [1]
    assert job.metadata.min_event_timestamp == job.metadata.max_event_timestamp


def test_mistakes_are_named(store, tmp_path):
    asked = entities([(0, "a", 0)])
    with pytest.raises(ValueError, match="no column 'k', a join key of feature view 'plain'"):
        store.ask(asked.drop_columns(["k"]), ["plain:value"])
    with pytest.raises(ValueError, match="'value' of view 'plain' has the name of another column"):
        store.ask(asked.append_column("value", pa.array([1])), ["plain:value"])
    with pytest.raises(ValueError, match="must be a pandas DataFrame or a pyarrow Table, not str"):
        store.ask("SELECT 1", ["plain:value"])
    with pytest.raises(EntityTimestampInferenceException):
        store.ask(asked.drop_columns(["event_timestamp"]), ["plain:value"])
    with pytest.raises(FileNotFoundError, match="source 'gone'"):
        stored.source_rows(FileSource(name="gone", path=str(tmp_path / "gone.parquet")), store.feast.config)
