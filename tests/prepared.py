"""A log's raw files taken from ingest to encode, on a catalog of its own below one folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from kedro.io import DataCatalog, MemoryDataset
from kedro.runner import SequentialRunner
from kedro_datasets.json import JSONDataset

from multidomain import schema
from multidomain.io import Folder, ParquetTable, WorkingFolder
from multidomain.pipelines import encode, features, ingest, partition, validate

TABLES = (
    *(f"{stage}_{name}" for stage in ("ingested", "valid") for name in ("impressions", "users", "items")),
    *("rejected_lines", "quarantine", "partitioned", "domain_table", "training_frame"),
)
FOLDERS = ("data_docs", "feature_views", "encoder", "encoded")
REPORTS = ("ingest_report", "validation_report", "feature_repository")


def catalog(read: schema.Schema, raw_folder: Path, folder: Path, **choice: str) -> DataCatalog:
    """Everything the stages ask for, the variant being ``choice``."""
    return DataCatalog(
        {
            "schema": MemoryDataset(read, copy_mode="assign"),
            "variant": MemoryDataset(read.variant(**choice), copy_mode="assign"),
            "params:raw_folder": MemoryDataset(str(raw_folder)),
            "params:sample_share": MemoryDataset(None),
            "params:window": MemoryDataset({}),
            "parsed_files": WorkingFolder(filepath=str(folder / "parsed")),
            **{name: ParquetTable(filepath=str(folder / f"{name}.parquet")) for name in TABLES},
            **{name: Folder(filepath=str(folder / name)) for name in FOLDERS},
            **{name: JSONDataset(filepath=str(folder / f"{name}.json")) for name in REPORTS},
        }
    )


def checked(read: schema.Schema, raw_folder: Path, folder: Path) -> DataCatalog:
    """After ingest and validate."""
    data = catalog(read, raw_folder, folder)
    SequentialRunner().run(ingest.create_pipeline() + validate.create_pipeline(), data)
    return data


def prepare(read: schema.Schema, raw_folder: Path, folder: Path, **choice: str) -> DataCatalog:
    """After all stages up to the tensors."""
    data = catalog(read, raw_folder, folder, **choice)
    stages = [stage.create_pipeline() for stage in (ingest, validate, partition, features, encode)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MULTIDOMAIN_DATA", str(folder / "data"))
        SequentialRunner().run(sum(stages[1:], stages[0]), data)
    return data


def quarantine(data: DataCatalog) -> dict[tuple[str, str], str]:
    """(table or file, key) -> reason."""
    rows: list[dict[str, Any]] = data.load("quarantine").to_pyarrow().to_pylist()
    return {(row["table"], row["row_key"]): row["reason"] for row in rows}


def patient(described: schema.Schema, folder: Path) -> schema.Schema:
    """The same schema, which stops no run before half of the rows are set apart."""
    path = folder / described.path.name
    text = described.path.read_text(encoding="utf-8")
    path.write_text(f"{text}\nvalidation: {{max_quarantined: 0.5}}\n", encoding="utf-8")
    return schema.parse(path)
