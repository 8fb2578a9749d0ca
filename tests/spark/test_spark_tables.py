"""Tables on Spark are what tables on DuckDB are: values, nulls, types, order. Needs PySpark and Java 17."""

from __future__ import annotations

import datetime as dt
import math
from pathlib import Path

import duckdb
import ibis
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from multidomain import schema, sources
from multidomain.errors import DataError
from multidomain.io import ParquetTable, embedded
from multidomain.io.parts import part_files, rows_of
from multidomain.pipelines.partition.nodes import assign, describe_domains
from multidomain.pipelines.validate.nodes import validate

AT = dt.datetime(2024, 1, 1, 23, 59, 59, 999_999)
MIXED = pa.table(
    {
        "number": pa.array([3, None, 2**60 + 1]),
        "small": pa.array([1, 0, None], pa.int8()),
        "share": pa.array([0.1, None, math.inf]),
        "text": pa.array(["é", None, 'a"b']),
        "at": pa.array([AT, None, AT], pa.timestamp("us")),
        "zoned": pa.array([AT, None, AT], pa.timestamp("us", "UTC")),
        "words": pa.array([["a", ""], None, []], pa.list_(pa.string())),
        "numbers": pa.array([[2**60 + 1], None, []], pa.list_(pa.int64())),
    }
)


def both(spark, table: pa.Table, folder: Path) -> list[ibis.Table]:
    """The same file as a table of each engine."""
    path = folder / "given.parquet"
    pq.write_table(table, path)
    return [embedded().read_parquet(str(path)), spark.read_parquet(str(path))]


def test_values_nulls_and_types_survive_on_every_way_to_the_driver(spark, tmp_path):
    ours, theirs = both(spark, MIXED, tmp_path)
    assert theirs.to_pyarrow().equals(ours.to_pyarrow().cast(theirs.schema().to_pyarrow()))
    assert theirs.schema() == ours.schema()
    assert theirs.to_pyarrow_batches(chunk_size=2).read_all().equals(theirs.to_pyarrow())
    assert spark.to_pyarrow(ibis.memtable(MIXED)).to_pylist() == MIXED.to_pylist()
    assert theirs.execute().isna().equals(ours.execute().isna())
    assert theirs.number.max().execute() == 2**60 + 1
    assert spark.to_pyarrow(theirs.number.max()).as_py() == 2**60 + 1


def test_what_spark_writes_has_the_types_that_duckdb_writes(spark, tmp_path):
    found = []
    for number, table in enumerate(both(spark, MIXED, tmp_path)):
        made = table.mutate(place=ibis.row_number().over(order_by=table.number), total=table.small.sum())
        dataset = ParquetTable(filepath=str(tmp_path / f"made{number}.parquet"), distributed=True)
        dataset.save(made)
        described = duckdb.sql(f"DESCRIBE SELECT * FROM read_parquet({[str(p) for p in _parts(dataset)]})")
        found.append({name: kind for name, kind, *_ in described.fetchall()})
    ours, theirs = found
    ours["total"] = "BIGINT"  # DuckDB sums to 128 bits, which Parquet keeps as floats: nodes cast their sums
    assert theirs == ours


def _parts(dataset: ParquetTable) -> list[Path]:
    return part_files(Path(dataset._describe()["filepath"]))


def test_parts_are_in_the_order_that_was_asked_for_and_read_in_it(spark, tmp_path):
    numbers = pa.table({"n": pa.array([(i * 7919) % 1000 for i in range(1000)] + [None])})
    for table in both(spark, numbers, tmp_path):
        dataset = ParquetTable(filepath=str(tmp_path / "sorted.parquet"))
        dataset.save(table.order_by("n"))
        assert dataset.load().to_pyarrow()["n"].to_pylist() == [*range(1000), None]  # by DuckDB, whoever wrote it
        assert rows_of(tmp_path / "sorted.parquet") == 1001
        assert dataset.exists()
    assert (tmp_path / "sorted.parquet").is_dir()  # a folder took the file's place
    dataset.save(numbers)
    assert (tmp_path / "sorted.parquet").is_file()  # and the other way round
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_a_folder_that_is_passed_on_as_it_was_is_not_written_again(spark, tmp_path):
    first = ParquetTable(filepath=str(tmp_path / "first.parquet"), distributed=True)
    second = ParquetTable(filepath=str(tmp_path / "second.parquet"), distributed=True)
    first.save(both(spark, MIXED, tmp_path)[1].order_by("number"))
    second.save(first.load())
    assert [p.stat().st_ino for p in _parts(first)] == [p.stat().st_ino for p in _parts(second)]


def test_values_are_collected_in_the_order_of_their_keys_nulls_last(spark, tmp_path):
    rows = pa.table(
        {
            "of": [1, 1, 1, 1, 1, 2, 2],
            "first": [3, None, 1, 1, 2, None, 5],
            "second": ["b", "a", None, "z", "c", "x", "y"],
            "value": ["v1", "v2", "v3", "v4", None, "v6", "v7"],
        }
    )
    found = []
    for table in both(spark, rows, tmp_path):
        keys = [table["first"], table["second"]]
        lists = table.group_by("of").aggregate(
            all=table["value"].collect(order_by=keys),
            some=table["value"].collect(order_by=keys, where=table["second"] != "z"),
        )
        found.append(lists.order_by("of").to_pyarrow().to_pylist())
    assert found[0] == [
        {"of": 1, "all": ["v4", "v3", "v1", "v2"], "some": ["v1", "v2"]},
        {"of": 2, "all": ["v7", "v6"], "some": ["v7", "v6"]},
    ]
    assert found[1] == found[0]


def test_a_temporary_table_is_computed_once_and_replaced(spark, tmp_path):
    table = both(spark, pa.table({"n": [1, 2]}), tmp_path)[1]
    held = spark.create_table("held", table.mutate(drawn=ibis.random()), temp=True, overwrite=True)
    assert held.to_pyarrow().equals(held.to_pyarrow())
    assert spark.create_table("held", held.filter(held.n == 1), temp=True, overwrite=True).count().execute() == 1


def test_what_spark_says_on_pages_becomes_one_message(spark, tmp_path):
    text = both(spark, pa.table({"s": ["x"]}), tmp_path)[1]
    with pytest.raises(DataError, match=r"Spark could not finish: .*CAST_INVALID_INPUT(.|\n)*--only-missing-outputs"):
        spark.to_parquet(text.select(n=text.s.cast("int64")), tmp_path / "never.parquet")


# --- the stages --------------------------------------------------------------------------------------------------

SHOP = {
    "source": "table",
    "files": {"log": "log.csv"},
    "roles": {"user": "who", "item": "what", "timestamp": "at"},
    "labels": {"click": "clicked"},
    "domains": {
        "page": {"column": "page", "minimum": 3},
        "age": {"column": "years", "bins": [30, 40], "minimum": 1},
        "both": {"cross": ["page", "sex"], "minimum": 1},
    },
    "splits": {"user_time": {}, "time": {}, "random": {}, "order": {}},
    "features": {
        "sex": {"owner": "user", "allowed": ["F", "M"]},
        "years": {"owner": "user", "type": "int", "range": [0, 120]},
        "price": {"owner": "item", "kind": "numerical"},
        "tags": {"owner": "item", "kind": "sequence", "allowed": ["red", "blue"]},
    },
    "validation": {"max_quarantined": 1.0},
}
KEYS = {"impressions": "impression_id", "users": "who", "items": "what"}


def shop(folder: Path) -> schema.Schema:
    path = folder / "shop.yml"
    path.write_text(yaml.safe_dump(SHOP, sort_keys=False))
    return schema.parse(path)


def hostile(rows: int = 400) -> dict[str, pa.Table]:
    """Ties in time, missing and foreign keys, values that are not allowed, ids twice, times to come."""
    impressions = [
        {
            "impression_id": i,
            "who": f"u{(i * i) % 23}",
            "what": f"i{(i * 7) % 11}",
            "at": dt.datetime(2024, 1, 1) + dt.timedelta(seconds=(i * 31) % 97 * 3600),
            "clicked": (i * 5) % 3 % 2,
            "page": ["home", "shop", None, "é", "rare" if i < 4 else "home"][i % 5],
        }
        for i in range(rows)
    ]
    impressions[7].update(impression_id=8)
    impressions[9].update(who=None, clicked=2)
    impressions[11].update(what="nothing", at=dt.datetime(2999, 1, 1, 1, 2, 3, 456000))
    users = [
        {"who": f"u{i}", "sex": "FMX"[i % 3 if i == 2 else i % 2], "years": None if i == 5 else 20 + i}
        for i in range(23)
    ]
    items = [
        {"what": f"i{i}", "price": -math.inf if i == 3 else i / 3, "tags": [["red"], [], ["green", None], None][i % 4]}
        for i in range(11)
    ]
    kinds = {
        "impressions": pa.schema(
            {
                "impression_id": pa.int64(),
                "who": pa.string(),
                "what": pa.string(),
                "at": pa.timestamp("us"),
                "clicked": pa.int8(),
                "page": pa.string(),
            }
        ),
        "users": pa.schema({"who": pa.string(), "sex": pa.string(), "years": pa.int64()}),
        "items": pa.schema({"what": pa.string(), "price": pa.float64(), "tags": pa.list_(pa.string())}),
    }
    rows_of_table = {"impressions": impressions, "users": users, "items": items}
    return {name: pa.Table.from_pylist(rows_of_table[name], schema=kind) for name, kind in kinds.items()}


def test_both_engines_keep_and_set_apart_the_same_rows(spark, tmp_path):
    found = {"ours": [], "theirs": []}
    for name, table in hostile().items():
        (tmp_path / name).mkdir()
        for engine, one in zip(found, both(spark, table, tmp_path / name), strict=True):
            found[engine].append(one)
    nothing = (sources.nothing("rejected"), {"files": []})
    read = shop(tmp_path)
    ours, theirs = (validate(read, *tables, *nothing) for tables in found.values())
    for name, one, other in zip(KEYS, ours[:3], theirs[:3], strict=True):
        assert one.count().execute() < hostile()[name].num_rows, f"nothing of {name} was set apart"
        order = [ibis._[KEYS[name]]]
        assert other.order_by(order).to_pyarrow().to_pylist() == one.order_by(order).to_pyarrow().to_pylist()
    order = ["table", "row_key", "reason", "values"]
    apart = ours[3].order_by(order).to_pyarrow().to_pylist()
    assert theirs[3].order_by(order).to_pyarrow().to_pylist() == [
        row | {"values": row["values"].replace("-Infinity", '"-Infinity"')} for row in apart
    ]


@pytest.mark.parametrize("split", ["user_time", "random", "order"])
def test_both_engines_give_every_impression_the_same_domain_and_split(spark, tmp_path, split):
    read = shop(tmp_path)
    tables = hostile()
    tables["impressions"] = tables["impressions"].filter(pa.compute.field("clicked") < 2)
    found = {"ours": [], "theirs": []}
    for name, table in tables.items():
        (tmp_path / name).mkdir()
        for engine, one in zip(found, both(spark, table, tmp_path / name), strict=True):
            found[engine].append(one)
    domains = {"user_time": "age", "time": "page", "random": "both", "order": "page"}
    variant = read.variant(split=split, domain=domains[split])
    ours, theirs = (assign(variant, *given) for given in found.values())
    assert theirs.to_pyarrow().to_pylist() == ours.to_pyarrow().to_pylist()  # in this order
    assert describe_domains(theirs).to_pylist() == describe_domains(ours).to_pylist()
