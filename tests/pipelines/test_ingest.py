"""Real logs, described by a schema of at most forty lines, run through ingest and validate with nothing set apart."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from kedro.io import DataCatalog, MemoryDataset
from kedro.runner import SequentialRunner

from multidomain import schema
from multidomain.errors import DataError, SchemaError
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


OTHERS = ("quarantine", "rejected_lines")


def catalog(read: schema.Schema, raw_folder: Path, folder: Path, sample_share: float | None = None) -> DataCatalog:
    tables = [f"{stage}_{name}" for stage in ("ingested", "valid") for name in ("impressions", "users", "items")]
    return DataCatalog(
        {
            "schema": MemoryDataset(read, copy_mode="assign"),
            "params:raw_folder": MemoryDataset(str(raw_folder)),
            "params:sample_share": MemoryDataset(sample_share),
            "params:window": MemoryDataset({}),
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
    assert pipeline.inputs() == {"schema", "params:raw_folder", "params:sample_share", "parsed_files", "params:window"}
    assert pipeline.outputs() == {
        "ingested_impressions",
        "ingested_users",
        "ingested_items",
        "rejected_lines",
        "ingest_report",
    }


def owned_log(tmp_path: Path, **sections: Any) -> DataCatalog:
    """Users a, b, c with 4, 2 and 1 rows, of which 2, 0 and 1 are clicked; items x and y with 5 and 2 rows."""
    rows = ["a,x,1", "a,x,1", "a,y,0", "a,x,0", "b,x,0", "b,y,0", "c,x,1"]
    (tmp_path / "log.csv").write_text("\n".join(["who,what,clicked", *rows]))
    content = {
        "source": "table",
        "files": {"log": "log.csv"},
        "roles": {"user": "who", "item": "what"},
        "labels": {"click": "clicked"},
        "domains": {"what": "what"},
        "features": {"who": {}, "what": {}},
    }
    (tmp_path / "shop.yml").write_text(yaml.safe_dump(content | sections, sort_keys=False))
    return catalog(schema.parse(tmp_path / "shop.yml"), tmp_path, tmp_path / "out")


@pytest.mark.parametrize(
    ("minimum", "kept"),
    [
        ({"user": {"rows": 2}}, 6),
        ({"user": {"positives": 1}}, 5),
        ({"user": {"rows": 2, "positives": 1}}, 4),
        ({"item": {"rows": 3}}, 5),
        ({"user": {"rows": 2}, "item": {"rows": 3}}, 4),  # both look at all rows: user b keeps its row of item x
    ],
)
def test_users_and_items_with_too_few_rows_are_left_out_and_counted(tmp_path: Path, minimum: Any, kept: int) -> None:
    data = owned_log(tmp_path, minimum=minimum)
    left = SequentialRunner().run(ingest.create_pipeline(), data)
    assert data.load("ingested_impressions").count().execute() == kept
    report = left["ingest_report"].load()
    assert (report["impressions"], report["left_out"]) == (7, 7 - kept)


def test_a_minimum_that_nothing_reaches_is_refused_with_the_numbers(tmp_path: Path) -> None:
    data = owned_log(tmp_path, minimum={"user": {"rows": 9}})
    with pytest.raises(DataError, match=r"none of 7 impressions .*user: 9 rows"):
        SequentialRunner().run(ingest.create_pipeline(), data)


def test_a_minimum_for_something_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SchemaError, match=r"minimum: 'domain' is not known.*Allowed: item, user"):
        owned_log(tmp_path, minimum={"domain": {"rows": 9}})
