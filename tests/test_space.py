"""Room on the disk, before a stage begins."""

from __future__ import annotations

from collections import namedtuple
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from kedro.io import DataCatalog, MemoryDataset
from kedro.pipeline import node

from multidomain import space
from multidomain.errors import DataError
from multidomain.io import Folder, ParquetTable
from multidomain.pipeline_registry import register_pipelines
from multidomain.training.checkpoint import require_room

Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """What the disk has left; set ``bytes``."""
    left = SimpleNamespace(bytes=1 << 40)
    monkeypatch.setattr("shutil.disk_usage", lambda _: Usage(1 << 40, 0, left.bytes))
    return left


def catalog(folder: Path) -> DataCatalog:
    (folder / "partitioned.parquet").write_bytes(b"x" * 1000)
    return DataCatalog(
        {
            "partitioned": ParquetTable(filepath=str(folder / "partitioned.parquet")),
            "feature_views": Folder(filepath=str(folder / "new/views")),
            "raw_files": MemoryDataset(),
            "ingested": ParquetTable(filepath=str(folder / "ingested.parquet")),
        }
    )


def test_sizes_are_those_of_all_files_below_and_links_count_as_themselves(tmp_path: Path) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/one").write_bytes(b"1" * 10)
    (tmp_path / "a/b/two").write_bytes(b"2" * 20)
    (tmp_path / "a/link").symlink_to(tmp_path / "a/b")
    assert space.size(tmp_path / "a/b") == 20
    assert 30 < space.size(tmp_path / "a") < 30 + 200
    assert space.size(tmp_path / "none") == 0


def test_a_stage_that_would_fill_the_disk_is_not_begun(tmp_path: Path, free: SimpleNamespace) -> None:
    stage = node(lambda partitioned: partitioned, "partitioned", "feature_views", name="build_feature_views")
    needed = space.LEAST + 3000
    free.bytes = needed
    space.SpaceHooks().before_node_run(stage, catalog(tmp_path), {})
    free.bytes = needed - 1
    wanted = rf"'build feature views' was not begun: it needs about {needed:,} bytes in .*new, {needed - 1:,} are free"
    with pytest.raises(DataError, match=wanted):
        space.SpaceHooks().before_node_run(stage, catalog(tmp_path), {})


def test_raw_files_are_measured_where_they_lie(tmp_path: Path, free: SimpleNamespace) -> None:
    (tmp_path / "log.csv").write_bytes(b"x" * 5000)
    stage = node(lambda raw_files: raw_files, "raw_files", "ingested", name="read_log")
    free.bytes = space.LEAST + 4999
    with pytest.raises(DataError, match=f"needs about {space.LEAST + 5000:,} bytes"):
        space.SpaceHooks().before_node_run(stage, catalog(tmp_path), {"raw_files": {"log": tmp_path / "log.csv"}})


def test_a_stage_without_an_estimate_is_begun(tmp_path: Path, free: SimpleNamespace) -> None:
    free.bytes = 0
    stage = node(lambda partitioned: partitioned, "partitioned", "feature_views", name="describe_domains")
    space.SpaceHooks().before_node_run(stage, catalog(tmp_path), {})


def test_every_estimate_is_of_a_stage_and_of_what_it_reads() -> None:
    nodes = {node.short_name: node for node in register_pipelines()["train_star"].nodes}
    for stage, factors in space.FACTORS.items():
        inputs = {name.rpartition(".")[2] for name in nodes[stage].inputs}
        assert set(factors) <= inputs, stage


def test_a_training_without_room_for_its_checkpoint_is_not_begun(tmp_path: Path, free: SimpleNamespace) -> None:
    model = torch.nn.Linear(1000, 1000, bias=False)  # 4,000,000 bytes
    needed = 3 * 4_000_000 + (1 << 20)
    free.bytes = needed
    require_room(tmp_path / "checkpoints", model)
    free.bytes = needed - 1
    with pytest.raises(DataError, match=f"a training checkpoint needs {needed:,} bytes"):
        require_room(tmp_path / "checkpoints", model)
