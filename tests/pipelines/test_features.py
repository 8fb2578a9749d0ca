"""The stage as Kedro runs it, on an in-memory catalog with the project's own datasets."""

from __future__ import annotations

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from kedro.io import DataCatalog, MemoryDataset
from kedro.runner import SequentialRunner
from kedro_datasets.json import JSONDataset

from multidomain import schema
from multidomain.io import Folder, ParquetTable, connection
from multidomain.pipelines import features

SCHEMA = """
source: table
files: {log: log.parquet}
roles: {user: person, item: film, timestamp: at}
labels: {click: clicked}
domains: {place: {column: place, minimum: 1}}
features: {city: {owner: user}, film: {owner: item, type: int}, device: {}}
history: {positives: {length: 2, fields: {film: film}}}
counts: [user, item]
"""


@pytest.fixture
def catalog(tmp_path, monkeypatch):
    monkeypatch.setenv("MULTIDOMAIN_DATA", str(tmp_path / "data"))
    (tmp_path / "tiny.yml").write_text(SCHEMA)
    rows = {
        "impression_id": [0, 1, 2, 3, 4],
        "user": ["ann"] * 5,
        "item": ["1", "2", "3", "1", "2"],
        "timestamp": pd.to_datetime(
            ["2020-01-01 10:00", "2020-01-01 11:00", "2020-01-01 11:00", "2020-01-02 09:00", "2020-01-03 09:00"]
        ),
        "label": [1, 1, 0, 1, 0],
        "split": ["train", "train", "train", "validation", "test"],
    }
    frame = pd.DataFrame(rows).assign(group="ann", domain="home", domain_id=0)
    table = pa.Table.from_pandas(frame, preserve_index=False)
    tables = {
        "partitioned": table.set_column(3, "timestamp", table["timestamp"].cast(pa.timestamp("us"))),
        "valid_impressions": pa.table({"impression_id": range(5), "device": ["phone"] * 5}),
        "valid_users": pa.table({"person": ["ann"], "city": ["Oslo"]}),
        "valid_items": pa.table({"film": ["1", "2", "3"]}),
    }
    found = DataCatalog({"variant": MemoryDataset(schema.parse(tmp_path / "tiny.yml").variant())})
    for name, content in tables.items():
        pq.write_table(content, tmp_path / f"{name}.parquet")
        found[name] = MemoryDataset(connection().read_parquet(str(tmp_path / f"{name}.parquet")), copy_mode="assign")
    found["feature_views"] = Folder(filepath=str(tmp_path / "views"))
    found["feature_repository"] = JSONDataset(filepath=str(tmp_path / "repository.json"))
    found["training_frame"] = ParquetTable(filepath=str(tmp_path / "training_frame.parquet"))
    return found


def test_the_stage_runs_and_gives_the_values_worked_out_by_hand(catalog):
    SequentialRunner().run(features.create_pipeline(), catalog)
    frame = catalog["training_frame"].load().order_by("impression_id").to_pyarrow().to_pylist()
    assert [row["split"] for row in frame] == ["train", "train", "train", "validation", "test"]
    # 11:00 holds two impressions: neither sees the other, both see 10:00
    assert [row["positives_state"] for row in frame] == [0, 1, 1, 2, 3]
    assert [row["positives_film"] for row in frame] == [None, [1], [1], [1, 2], [2, 1]]
    assert [row["user_count"] for row in frame] == [None, 1, 1, 3, 4]
    prior = 2 / 3
    assert frame[3]["user_rate"] == pytest.approx((2 + 20 * prior) / 23)
    # items: training rows of earlier days only, so the validation row of film 1 is not in any snapshot
    assert [row["item_count"] for row in frame] == [None, None, None, 1, 1]
    assert frame[3]["item_rate"] == pytest.approx((1 + 20 * prior) / 21)
    assert {row["city"] for row in frame} == {"Oslo"}
    assert {row["device"] for row in frame} == {"phone"}
    repository = catalog["feature_repository"].load()
    assert repository["service"] == "full"
    assert sorted(repository["views"]) == ["item_counts", "item_profile", "user_counts", "user_history", "user_profile"]
    assert repository["prior"] == pytest.approx(prior)


def test_the_stage_takes_and_gives_what_the_neighbours_expect():
    pipeline = features.create_pipeline()
    assert pipeline.inputs() == {"variant", "partitioned", "valid_impressions", "valid_users", "valid_items"}
    assert pipeline.outputs() == {"training_frame"}
    assert pipeline.all_outputs() == {"feature_views", "feature_repository", "training_frame"}
