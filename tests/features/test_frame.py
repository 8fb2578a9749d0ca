from __future__ import annotations

import json

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from asof_oracle import picked
from feature_oracle import ITEMS, USERS, Bench, log, one_world

from multidomain import schema
from multidomain.errors import DataError
from multidomain.features import frame as frames
from multidomain.features import repository, views
from multidomain.features.frame import TrainingFrame
from multidomain.io import connection


def test_columns_types_and_order_are_those_of_the_contract(benches):
    bench = benches["user_time"]
    bench.build(log(1))
    bench.join(log(1))
    text, words = pa.string(), pa.list_(pa.string())
    assert {field.name: field.type for field in bench.schema} == {
        "impression_id": pa.int64(),
        "user": text,
        "item": text,
        "group": text,
        "timestamp": pa.timestamp("us"),
        "domain": text,
        "domain_id": pa.int32(),
        "label": pa.int8(),
        "split": text,
        "person": text,
        "city": text,
        "film": pa.int64(),
        "kind": text,
        "tags": words,
        "year": pa.int64(),
        "device": text,
        "price": pa.float64(),
        **{
            f"{key}_{what}{window}": t
            for key in bench.variant.counts
            for window in ("", "_1d", "_3d")
            for what, t in (("count", pa.int64()), ("rate", pa.float64()))
        },
        "positives_film": pa.list_(pa.int64()),
        "positives_kind": words,
        "positives_state": pa.int64(),
    }


def test_profiles_and_context_reach_their_impressions_and_nothing_is_lost(benches):
    rows, bench = log(2), benches["time"]
    found = bench.frame(rows)
    assert len(found) == len(rows)
    cities = dict(zip(USERS["person"], USERS["city"], strict=True))
    years = dict(zip(ITEMS["film"].astype(int), ITEMS["year"], strict=True))
    tags = dict(zip(ITEMS["film"].astype(int), ITEMS["tags"], strict=True))
    for row in rows.itertuples():
        got, film = found.loc[row.impression_id], int(row.item)
        assert got["device"] == row.device
        assert got["price"] == row.price
        assert got["city"] == cities.get(row.user)
        assert got["person"] == (f"{row.user}@1" if row.user in cities else None)
        assert got["film"] == (film if film in years else None)
        assert got["year"] == (None if film not in years or pd.isna(years[film]) else years[film])
        assert got["tags"] == tags.get(film)
        assert got["label"] == row.label


def test_missing_feature_rows_are_counted_per_view(benches):
    rows, bench = log(2), benches["time"]
    found = bench.frame(rows)
    missing = bench.report["missing"]
    assert missing["user_profile"] == (rows["user"] == "dan").sum()
    assert missing["item_profile"] == (rows["item"] == "99").sum()
    assert missing["user_counts"] == found["user_count"].isna().sum() > 0
    assert missing["user_history"] == (found["positives_state"] == 0).sum() > 0
    stored = pq.read_metadata(bench.folder / "frame.parquet").metadata[b"multidomain.features"]
    assert json.loads(stored) == bench.report


def test_slices_and_row_groups_change_nothing_but_the_pruning(benches, monkeypatch):
    rows, bench = log(3), benches["user_time"]
    whole = bench.frame(rows)
    monkeypatch.setattr(frames, "ROW_GROUP", 16)
    bench.build(rows)
    sliced = bench.join(rows, slice_rows=50)
    assert sliced.sort_index().equals(bench.join(rows).sort_index())
    assert len(sliced) == len(whole)
    file = pq.ParquetFile(bench.folder / "frame.parquet")
    splits = [
        file.read_row_group(i, columns=["split"])["split"].unique().to_pylist() for i in range(file.num_row_groups)
    ]
    assert all(len(found) == 1 for found in splits)
    order = [found[0] for found in splits]
    assert order == sorted(order, key=["train", "validation", "test"].index)
    assert bench.report["splits"] == rows["split"].value_counts().to_dict()


@pytest.mark.parametrize("seed", [4, 5])
def test_every_cell_is_that_of_the_row_that_plain_sql_picks(benches, seed):
    """The views' files joined by a correlated subquery; some impressions have no user, some users no earlier row."""
    bench, rows = benches["user_time"], one_world(log(seed, rows=200))
    rows.loc[rows["impression_id"] % 9 == 0, ["user", "group"]] = None
    bench.build(rows)
    frame = bench.join(rows, slice_rows=23)
    asked = frame[["user", "item", "domain", "timestamp"]].to_dict("records")
    asked = [{**row, "at": pd.Timestamp(row["timestamp"]).value // 1000} for row in asked]
    assert len(frame) == len(rows)
    for view in views.views(bench.variant):
        known = pq.read_table(bench.views / view.file).to_pylist()
        known = [{**row, "at": pd.Timestamp(row[views.TIME]).value // 1000} for row in known]
        numbers = picked(known, asked, [(key, key) for key in view.keys])
        assert bench.report["missing"][view.name] >= numbers.count(None) > 0
        for column in view.columns:
            none = 0 if column.name.endswith("_state") else None
            wanted = [none if number is None else known[number][column.name] for number in numbers]
            assert frame[column.name].tolist() == wanted, column.name


def test_repeated_impression_ids_in_the_context_are_an_error(benches, tmp_path):
    bench = benches["user_time"]
    partitioned, impressions, _, _ = bench.tables(log(1))
    with pytest.raises(DataError, match="impression ids of valid_impressions are not unique"):
        TrainingFrame(bench.variant, partitioned, impressions.union(impressions))(tmp_path / "frame.parquet")
    assert list(tmp_path.iterdir()) == []


def test_a_missing_context_column_is_named(benches, tmp_path):
    bench = benches["user_time"]
    partitioned, impressions, _, _ = bench.tables(log(1))
    with pytest.raises(DataError, match="no column 'device', needed by context feature 'device'"):
        TrainingFrame(bench.variant, partitioned, impressions.drop("device"))(tmp_path / "frame.parquet")


def test_a_store_that_loses_rows_is_found_out(benches, tmp_path, monkeypatch):
    bench, rows = benches["user_time"], log(1)
    bench.frame(rows)
    store, _ = repository.service(bench.variant)
    right = type(store).get_historical_features

    class Fewer:
        def __init__(self, job):
            self.job = job

        def to_arrow(self):
            return self.job.to_arrow().slice(1)

    monkeypatch.setattr(type(store), "get_historical_features", lambda *a, **k: Fewer(right(*a, **k)))
    partitioned, impressions, _, _ = bench.tables(rows)
    with pytest.raises(DataError, match="drops or repeats rows"):
        TrainingFrame(bench.variant, partitioned, impressions)(tmp_path / "frame.parquet")


def test_a_store_that_shuffles_rows_does_no_harm(benches, tmp_path, monkeypatch):
    bench, rows = benches["user_time"], log(1)
    wanted = bench.frame(rows)
    store, _ = repository.service(bench.variant)
    right = type(store).get_historical_features

    class Shuffled:
        def __init__(self, job):
            self.job = job

        def to_arrow(self):
            table = self.job.to_arrow()
            return table.take(pa.array(range(table.num_rows - 1, -1, -1)))

    monkeypatch.setattr(type(store), "get_historical_features", lambda *a, **k: Shuffled(right(*a, **k)))
    assert bench.frame(rows).equals(wanted)


BARE = """
source: table
files: {log: log.parquet}
roles: {}
labels: {click: clicked}
domains: {place: {column: place, minimum: 1}}
splits: {random: {}}
features: {device: {}, price: {kind: numerical}}
"""
TIMELESS = BARE.replace("roles: {}", "roles: {item: film}").replace(
    "features: {", "features: {film: {type: int}, kind: {owner: item}, "
)


@pytest.mark.parametrize(("text", "expected"), [(BARE, []), (TIMELESS, ["item_profile"])])
def test_a_log_without_users_or_time_works(tmp_path, data_root, text, expected):
    path = tmp_path / "bare.yml"
    path.write_text(text)
    variant = schema.parse(path).variant()
    rows = log(1, rows=30)
    rows["item"] = rows["item"].str.rjust(2, "0")
    rows["user"] = rows["group"] = None
    if not expected:
        rows["item"] = None
    rows["timestamp"] = pd.Timestamp("2000-01-01")
    rows["split"] = ["train"] * 20 + ["test"] * 10
    columns = ["impression_id", "user", "item", "group", "timestamp", "domain", "domain_id", "label", "split"]
    kinds = pa.schema(
        [("user", pa.string()), ("item", pa.string()), ("group", pa.string()), ("timestamp", pa.timestamp("us"))]
    )
    table = pa.Table.from_pandas(rows[columns], preserve_index=False)
    for kind in kinds:
        table = table.set_column(table.column_names.index(kind.name), kind.name, table[kind.name].cast(kind.type))
    pq.write_table(table, tmp_path / "partitioned.parquet")
    pq.write_table(pa.table({"none": pa.array([], pa.int64())}), tmp_path / "none.parquet")
    rows[["impression_id", "device", "price"]].to_parquet(tmp_path / "impressions.parquet")
    ITEMS[["film", "kind"]].to_parquet(tmp_path / "items.parquet")
    names = ("partitioned", "impressions", "none", "items" if expected else "none")
    partitioned, impressions, users, items = (connection().read_parquet(str(tmp_path / f"{n}.parquet")) for n in names)

    manifest = views.write(variant, partitioned, users, items, tmp_path / "views")
    assert sorted(manifest["views"]) == expected
    registered = repository.apply(variant, tmp_path / "views")
    assert sorted(registered["views"]) == expected
    report = TrainingFrame(variant, partitioned, impressions)(tmp_path / "frame.parquet")
    assert report["rows"] == 30
    found = pq.read_table(tmp_path / "frame.parquet").to_pandas().set_index("impression_id").sort_index()
    assert found["device"].tolist() == rows.set_index("impression_id").sort_index()["device"].tolist()
    if expected:
        films = rows.set_index("impression_id").sort_index()["item"].astype(int).where(lambda f: f != 99)
        assert found["film"].fillna(-1).tolist() == films.fillna(-1).tolist()


def test_an_empty_table_is_an_error(benches, tmp_path):
    bench: Bench = benches["user_time"]
    partitioned, impressions, users, items = bench.tables(log(1))
    nothing = partitioned.filter(partitioned.label == 7)
    with pytest.raises(DataError, match="no row in the training split"):
        views.write(bench.variant, nothing, users, items, tmp_path / "views")
    bench.frame(log(1))
    with pytest.raises(DataError, match="no impressions"):
        TrainingFrame(bench.variant, nothing, impressions)(tmp_path / "frame.parquet")
