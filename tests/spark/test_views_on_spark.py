"""The view tables are the same, to the bit, from DuckDB and from Spark. Needs PySpark (`.[cluster]`) and Java 17."""

from __future__ import annotations

import pytest
from feature_oracle import PRIOR, Bench, log, one_world, small_schema

from multidomain.features import views
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
