"""The view tables, and what is looked for in them, are the same from DuckDB and from Spark.

Needs PySpark (`.[cluster]`) and Java 17.
"""

from __future__ import annotations

import pytest
from feature_oracle import PRIOR, Bench, log, one_world, small_schema

from multidomain.features import leaks, views
from multidomain.io import embedded
from multidomain.io.connection import use_spark


@pytest.mark.parametrize("split", ["user_time"])
def test_every_row_of_every_view_is_the_same(spark, tmp_path, split):
    bench = Bench(tmp_path, small_schema(tmp_path).variant(split=split))
    use_spark(None)
    partitioned, _, users, items = bench.tables(one_world(log(1, split=split)))
    tables = {"partitioned": partitioned, "users": users, "items": items}
    files = {name: str(tmp_path / f"{name}-given.parquet") for name in tables}
    for name, table in tables.items():
        embedded().to_parquet(table, files[name])
    there = [spark.read_parquet(path) for path in files.values()]
    ours = views.expressions(bench.variant, *tables.values(), prior=PRIOR)
    theirs = views.expressions(bench.variant, *there, prior=PRIOR)
    for view in views.views(bench.variant):
        order = [*view.keys, views.TIME]
        expected = ours[view.name].order_by(order).to_pyarrow()
        found = theirs[view.name].order_by(order).to_pyarrow()
        assert expected.num_rows > 0
        assert found.cast(expected.schema).to_pylist() == expected.to_pylist(), view.name


def test_a_leak_is_found_by_spark_as_it_is_by_duckdb(spark, spark_options, tmp_path, monkeypatch):
    use_spark(None)
    bench = Bench(tmp_path, small_schema(tmp_path).variant(split="user_time"))
    rows = one_world(log(2, rows=200))
    monkeypatch.setattr(views, "_known_after", lambda instant: instant.cast("timestamp('UTC', 6)"))
    bench.build(rows)
    bench.join(rows)
    frame = embedded().read_parquet(str(bench.folder / "frame.parquet"))
    found = []
    for options in (None, spark_options):
        use_spark(options)
        partitioned, _, _, items = bench.tables(rows)
        found.append(leaks.measure(bench.variant, partitioned, items, frame, prior=PRIOR).features)
    assert found[0].set_index("feature").loc["positives_film", "more"] > 0
    assert found[1].equals(found[0])
