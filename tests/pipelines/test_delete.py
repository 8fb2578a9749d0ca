"""Deleting one variant's files, and nothing else."""

from __future__ import annotations

import logging
import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from small_ranker import loaded

from multidomain import schema, tracking
from multidomain.errors import ConfigurationError
from multidomain.features import repository
from multidomain.io.atomic import remove
from multidomain.io.output_store import OutputStore
from multidomain.packaging import registry
from multidomain.pipelines.delete.nodes import LAYERS, delete
from multidomain.pipelines.delete.pipeline import create_pipeline

if TYPE_CHECKING:
    from trained_variant import Tiny, Trained

pytest_plugins = ["trained_variant"]
TWO = """
source: table
files: {impressions: log.parquet}
roles: {user: user_id, item: item_id}
labels: {click: clicked}
domains: {place: {column: place}, shop: {column: shop}}
splits: {random: {}}
features: {user_id: {owner: user}, item_id: {owner: item}}
"""


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder with files of two variants of one data set, and of what they share."""
    folder = tmp_path / "data"
    monkeypatch.setenv("MULTIDOMAIN_DATA", str(folder))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    for layer in LAYERS:
        for variant in ("place-random-full-click", "shop-random-full-click"):
            place = folder / layer / "two" / variant / "star"
            place.mkdir(parents=True)
            (place / "file").write_bytes(b"x" * 100)
            (place.parent / ".star.digest").write_bytes(b"y" * 10)
    for shared in ("01_raw/log.parquet", "02_intermediate/two/valid/users.parquet", "08_reporting/two/ingest.json"):
        (folder / shared).parent.mkdir(parents=True, exist_ok=True)
        (folder / shared).write_bytes(b"z")
    return folder


@pytest.fixture
def variant(tmp_path: Path) -> schema.Variant:
    path = tmp_path / "two.yml"
    path.write_text(TWO, encoding="utf-8")
    return schema.parse(path).variant(domain="place")


def files(folder: Path) -> set[str]:
    found = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix() for path in found if "mlflow" not in path.parts}


def test_without_confirmation_everything_is_listed_with_its_size_and_stays(
    data: Path, variant: schema.Variant, caplog: pytest.LogCaptureFixture
) -> None:
    before = files(data)
    for confirm in (None, "no", False, 1):
        with (
            caplog.at_level(logging.INFO),
            pytest.raises(ConfigurationError, match=r"Nothing was deleted. 6 folders of two/place-random-full-click "),
        ):
            delete(variant, confirm, "keep")
    assert files(data) == before
    assert f"{data / '06_models/two/place-random-full-click'}: 2 files, 110 bytes" in caplog.text
    assert "shop-random" not in caplog.text


def test_copies_in_the_output_store_go_too(
    data: Path, variant: schema.Variant, caplog: pytest.LogCaptureFixture
) -> None:
    address = "memory://deleted/outputs"
    store = OutputStore(address=address, data=data)
    for name in ("place-random-full-click", "shop-random-full-click"):
        store.put(data / "06_models/two" / name / "star", "made of this")
    with caplog.at_level(logging.INFO), pytest.raises(ConfigurationError, match=r"and 2 objects in the output store\."):
        delete(variant, None, "keep", address)
    assert f"{address}/06_models/two/place-random-full-click: 2 objects" in caplog.text
    remove(data / "06_models/two/place-random-full-click")  # they are known there whatever is here
    delete(variant, "yes", "keep", address)
    assert store.mark(data / "06_models/two/place-random-full-click/star") is None
    assert store.mark(data / "06_models/two/shop-random-full-click/star") is not None


@pytest.mark.parametrize("confirm", ["yes", True, "YES"])
def test_confirmed_the_variant_goes_and_all_else_stays(data: Path, variant: schema.Variant, confirm: Any) -> None:
    before = files(data)
    delete(variant, confirm, "keep")
    gone = {name for name in before if "/two/place-random-full-click/" in name}
    assert len(gone) == 12
    assert files(data) == before - gone
    assert not (data / "03_primary/two/place-random-full-click").exists()
    delete(variant, confirm, "keep")  # nothing is left to delete, and nothing is wrong with that
    assert files(data) == before - gone


def test_the_folder_of_a_data_set_goes_with_its_last_variant(data: Path, variant: schema.Variant) -> None:
    delete(variant, "yes", "keep")
    delete(variant.schema.variant(domain="shop"), "yes", "keep")
    assert not (data / "03_primary/two").exists()
    assert (data / "08_reporting/two/ingest.json").is_file()


def test_a_link_is_taken_away_and_what_it_points_to_stays(data: Path, variant: schema.Variant, tmp_path: Path) -> None:
    place = data / "05_model_input/two/place-random-full-click"
    place.rename(tmp_path / "elsewhere")
    place.symlink_to(tmp_path / "elsewhere")
    delete(variant, "yes", "keep")
    assert not place.is_symlink()
    assert (tmp_path / "elsewhere/star/file").is_file()


def test_an_option_that_is_not_allowed_is_an_error(data: Path, variant: schema.Variant) -> None:
    with pytest.raises(ConfigurationError, match="registered_models must be one of keep, delete, got 'drop'"):
        delete(variant, "yes", "drop")


def test_registered_models_are_named_and_left_unless_asked_for(
    tiny: Tiny,
    stars: tuple[Trained, Trained],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("MULTIDOMAIN_DATA", str(tmp_path / "data"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    made = stars[0].package()
    (tmp_path / "data/06_models" / tiny.variant.key).mkdir(parents=True)
    with caplog.at_level(logging.INFO):
        delete(tiny.variant, "yes", "keep")
    assert f"registered model {made['model']}, 1 versions: stays" in caplog.text
    assert registry.find(tiny.variant.key, "star") == (made["model"], "1")
    with pytest.raises(ConfigurationError, match="Nothing was deleted"):
        delete(tiny.variant, None, "delete")
    assert Path(made["path"]).is_dir()
    delete(tiny.variant, "yes", "delete")
    assert registry.of_variant(tiny.variant.key) == {}
    assert not Path(made["path"]).exists()
    assert tracking.connect().get_run(made["run_id"]).info.status == "FINISHED"  # what was measured stays


def test_the_feature_store_forgets_the_variant_and_no_other(tmp_path: Path) -> None:
    import datetime as dt

    with loaded(tmp_path, dt.datetime(2024, 6, 1)) as small:
        online = Path(repository.store(small.variant).config.online_store.path)
        with sqlite3.connect(online) as connection:
            connection.execute("CREATE TABLE another__project_view (a)")
        assert len(tables(online)) > 1
        repository.forget(small.variant)
        assert tables(online) == {"another__project_view"}
        projects = {project.name for project in repository.store(small.variant).list_projects()}
        assert small.variant.project not in projects
        repository.forget(small.variant)  # again: nothing is left


def tables(online: Path) -> set[str]:
    with sqlite3.connect(online) as connection:
        return {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}


def test_the_pipeline_reads_the_variant_alone() -> None:
    parameters = {"params:confirm", "params:registered_models", "params:output_store"}
    assert create_pipeline().inputs() == {"variant", *parameters}
