"""The as-of store on Spark, and what it materializes, row by row against plain SQL. Needs PySpark and Java 17."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from asof_oracle import picked
from asof_store import BASE, VIEWS, AsofStore, as_table, entities
from feast import FileSource
from feast.errors import EntityTimestampInferenceException


class Store(AsofStore):
    """A registered store over a folder of two parts, as Spark writes them."""

    offline = "multidomain.features.asof_spark.SparkAsofOfflineStore"
    engine = "multidomain.features.asof_spark.SparkEngine"

    def source(self, **options):
        from feast.infra.offline_stores.contrib.spark_offline_store.spark_source import SparkSource

        return SparkSource(**options, file_format="parquet")

    def write(self, rows):
        self.path.mkdir(exist_ok=True)
        half = len(rows) // 2
        pq.write_table(as_table(rows).slice(0, half), self.path / "part-00000.parquet", row_group_size=7)
        pq.write_table(as_table(rows).slice(half), self.path / "part-00001.parquet", row_group_size=7)


@pytest.fixture(scope="module")
def registered(tmp_path_factory, spark_options):
    from multidomain.io.connection import use_spark

    use_spark(spark_options)
    yield Store(tmp_path_factory.mktemp("asof"))
    use_spark(None)


@pytest.fixture
def store(registered, spark):
    return registered


def test_every_cell_of_every_view_equals_plain_sql(store):
    """Times and creation times with many ties and some missing; keys and times asked for that are missing or new."""
    draw = np.random.default_rng(0)
    times = (draw.integers(0, 9, 300) * 1_000_000).tolist()
    made = [None if m == 9 else int(m) * 1_000_000 for m in draw.integers(0, 10, 300)]
    keys, names = draw.integers(0, 4, 300).tolist(), draw.choice(list("ab"), 300).tolist()
    rows = [(keys[i], names[i], times[i], made[i], i, [f"w{i}"] * (i % 3)) for i in range(300)]
    store.write(rows)
    asked = [
        (None if k == 5 else int(k), str(n), None if t == 13 else int(t) * 1_000_000 - 1_000_000)
        for k, n, t in zip(
            draw.integers(0, 6, 200), draw.choice(list("abc"), 200), draw.integers(0, 14, 200), strict=True
        )
    ]
    table = entities([*asked, asked[0]])
    refs = [f"{name}:{column}" for name in VIEWS for column in ("value", "words")]
    found = store.ask(table, refs, full_feature_names=True).to_arrow()
    assert found.select(table.column_names).equals(table)
    known = [{"number": i, "k": k, "name": n, "at": t, "made": m} for i, (k, n, t, m, _, _) in enumerate(rows)]
    wanted = [{"k": k, "name": n, "at": t} for k, n, t in [*asked, asked[0]]]
    for name, (on, ttl, created) in VIEWS.items():
        right = picked(known, wanted, [(key, key) for key in on], ttl=ttl, made="made" if created else None)
        assert found[f"{name}__value"].to_pylist() == right, name
        words = [None if i is None else [f"w{i}"] * (i % 3) for i in right]
        assert found[f"{name}__words"].to_pylist() == words, f"{name}: the payload belongs to another row"
    assert found.schema.field("plain__value").type == pa.int64()


def test_rows_created_later_are_left_out_on_demand(store):
    store.write([(0, "a", 0, 0, 1, []), (0, "a", 5, 50, 2, []), (0, "a", 6, None, 3, [])])
    asked = entities([(0, "a", 10), (0, "a", 50), (0, "a", -1)])
    late = store.ask(asked, ["created:value"], filter_by_created_timestamp=True).to_arrow()
    assert late["value"].to_pylist() == [1, 2, None]
    assert store.ask(asked, ["created:value"]).to_arrow()["value"].to_pylist() == [3, 3, None]


def test_entity_rows_may_be_pandas_or_a_query_and_on_demand_views_are_computed(store):
    store.write([(0, "a", 0, 0, 6, ["x"]), (1, "a", 0, 0, 7, ["x"])])
    frame = entities([(0, "a", 1), (0, "a", 1)]).to_pandas().assign(factor=[2, 3])
    found = store.ask(frame, ["plain:value", "scaled:scaled"]).to_df()
    assert found["scaled"].tolist() == [12.0, 18.0]
    assert found["impression_id"].tolist() == [100, 101]
    query = f"SELECT 1L AS k, timestamp_micros({BASE}) AS event_timestamp"
    assert store.ask(query, ["plain:value"]).to_arrow()["value"].to_pylist() == [7]


def test_mistakes_are_named(store, tmp_path):
    asked = entities([(0, "a", 0)])
    with pytest.raises(ValueError, match="no column 'k', a join key of feature view 'plain'"):
        store.ask(asked.drop_columns(["k"]), ["plain:value"])
    with pytest.raises(EntityTimestampInferenceException):
        store.ask(asked.drop_columns(["event_timestamp"]), ["plain:value"])
    with pytest.raises(ValueError, match="entity_df must be"):
        store.ask(7, ["plain:value"])
    from multidomain.features.asof_spark import read_source

    with pytest.raises(ValueError, match="is a FileSource; this store reads SparkSources"):
        read_source(None, FileSource(name="file", path=str(tmp_path)))


def test_the_latest_row_of_every_key_goes_online_with_ties_decided_as_in_the_join(store):
    store.write(
        [
            (0, "a", 1, 5, 1, ["old"]),
            (0, "a", 2, 9, 2**60 + 1, ["made last"]),
            (0, "a", 2, 8, 3, ["made first"]),
            (0, "a", 3_000_000, 0, 4, ["too late"]),
            (1, "b", 0, None, 5, []),
        ]
    )
    start, end = datetime(1970, 1, 1, tzinfo=UTC), datetime.fromtimestamp(BASE / 1e6 + 1, UTC)
    store.feast.materialize(start, end, feature_views=["created", "pair"])
    rows = [{"k": 0}, {"k": 1}, {"k": 2}]
    found = store.feast.get_online_features(["created:value", "created:words"], rows).to_dict()
    assert found["value"] == [2**60 + 1, 5, None]
    assert found["words"] == [["made last"], [], None]
