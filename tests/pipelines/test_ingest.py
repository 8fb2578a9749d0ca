"""Real logs, described by a schema of at most forty lines, run through ingest and validate with nothing set apart."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from kedro.io import DataCatalog, MemoryDataset
from kedro.runner import SequentialRunner

from multidomain import schema
from multidomain.errors import DataError
from multidomain.io import ParquetTable, WorkingFolder
from multidomain.pipelines import ingest, validate

SCHEMAS = Path(__file__).parents[1] / "datasets"
SHARED = Path(os.environ.get("MULTIDOMAIN_SHARED") or schema.project_root().parent / "shared") / "data"
#       impressions, users, items, positive rate
REAL = {
    "kdd12": (39_948, 30_114, 19_228, 0.168),
    "coupon": (12_684, 0, 0, 0.569),
    "insteval": (73_421, 2_972, 1_128, 0.445),
    "xmarket": (350_239, 55_460, 11_665, 0.70),
}


OTHERS = ("quarantine", "rejected_lines", "files_read")


def catalog(read: schema.Schema, raw_folder: Path, folder: Path, sample_share: float | None = None) -> DataCatalog:
    tables = [f"{stage}_{name}" for stage in ("ingested", "valid") for name in ("impressions", "users", "items")]
    return DataCatalog(
        {
            "schema": MemoryDataset(read, copy_mode="assign"),
            "params:raw_folder": MemoryDataset(str(raw_folder)),
            "params:sample_share": MemoryDataset(sample_share),
            "parsed_files": WorkingFolder(filepath=str(folder / "parsed")),
            **{name: ParquetTable(filepath=str(folder / f"{name}.parquet")) for name in [*tables, *OTHERS]},
        }
    )


@pytest.mark.skipif(not SHARED.is_dir(), reason=f"the optional logs are not at {SHARED}")
@pytest.mark.parametrize("name", REAL)
def test_a_real_log_in_one_table_needs_a_schema_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("MULTIDOMAIN_SCHEMAS", str(SCHEMAS))
    assert len((SCHEMAS / f"{name}.yml").read_text().splitlines()) <= 40
    data = catalog(schema.load(name), SHARED, tmp_path)
    stages = ingest.create_pipeline() + validate.create_pipeline()
    left: dict[str, Any] = SequentialRunner().run(stages, data)
    report = left["validation_report"]
    report = report.load() if hasattr(report, "load") else report
    rows, users, items, rate = REAL[name]
    assert {table: found["kept"] for table, found in report["tables"].items()} == {
        "impressions": rows, "users": users, "items": items,
    }  # fmt: skip
    impressions = data.load("valid_impressions")
    label = schema.load(name).labels[0].column
    assert impressions[label].mean().execute() == pytest.approx(rate, abs=5e-3)
    assert impressions.impression_id.nunique().execute() == rows
    assert data.load("quarantine").count().execute() == 0


@pytest.mark.skipif(not SHARED.is_dir(), reason=f"the optional logs are not at {SHARED}")
def test_a_log_without_users_is_sampled_by_rows(tmp_path: Path) -> None:
    data = catalog(schema.parse(SCHEMAS / "coupon.yml"), SHARED, tmp_path, sample_share=0.1)
    SequentialRunner().run(ingest.create_pipeline(), data)
    assert 0.08 < data.load("ingested_impressions").count().execute() / 12_684 < 0.12


def test_a_missing_raw_file_leaves_nothing_half_written(tmp_path: Path) -> None:
    data = catalog(schema.parse(SCHEMAS / "coupon.yml"), tmp_path / "raw", tmp_path / "out")
    with pytest.raises(DataError, match=r"coupon.parquet is missing"):
        SequentialRunner().run(ingest.create_pipeline(), data)
    assert not (tmp_path / "out").exists()


def test_the_stage_gives_what_the_catalog_names() -> None:
    pipeline = ingest.create_pipeline()
    assert pipeline.inputs() == {"schema", "params:raw_folder", "params:sample_share", "parsed_files"}
    assert pipeline.outputs() == {
        "ingested_impressions",
        "ingested_users",
        "ingested_items",
        "rejected_lines",
        "files_read",
    }
