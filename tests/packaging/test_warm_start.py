"""A training that starts from a packaged model, with values and a domain added since."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest

from multidomain.encoder import Encoder
from multidomain.errors import ConfigurationError, DataError
from multidomain.io import Folder
from multidomain.packaging import warm_start
from multidomain.pipelines.encode.nodes import encode, fit_encoder
from multidomain.pipelines.train.nodes import train

if TYPE_CHECKING:
    from trained_variant import Tiny

    Packages = tuple[dict[str, Any], dict[str, Any]]

pytest_plugins = ["trained_variant"]
STAR = {"embedding_dim": 4, "hidden": [16, 8]}


@pytest.fixture(scope="module")
def grown(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """The same log, a while later: some items are new, and every fifth row is of a new domain, the first by name."""
    import ibis
    from trained_variant import Tiny

    folder = tmp_path_factory.mktemp("grown")
    rows = tiny.training_frame.load().to_pyarrow()
    for name in ("item", "item_id"):
        new = [f"new {v}" if number % 7 == 0 else v for number, v in enumerate(rows.column(name).to_pylist())]
        rows = rows.set_column(rows.column_names.index(name), name, pa.array(new))
    domains = ["a market" if n % 5 == 0 else v for n, v in enumerate(rows.column("domain").to_pylist())]
    rows = rows.set_column(rows.column_names.index("domain"), "domain", pa.array(domains))
    frame = ibis.memtable(rows)
    names = ["a market", "detail page", "home", "search"]
    table = ibis.memtable(pa.table({"domain_id": pa.array(range(4), pa.int32()), "domain": names}))

    def written(name: str, write: Any) -> Path:
        dataset = Folder(filepath=str(folder / name))
        dataset.save(write)
        return dataset.load()

    encoder = written("encoder", fit_encoder(tiny.variant, frame, table))
    return Tiny(
        folder, tiny.variant, tiny.training_frame, encoder, written("encoded", encode(tiny.variant, encoder, frame))
    )


def run(grown: Tiny, folder: Path, wanted: str | int | None, architecture: str = "star", **model: Any) -> Any:
    training = {"epochs": 1, "batch_size": 64, "learning_rate": 1e-9}
    given = {"variant": grown.variant, "encoder": grown.encoder, "warm_start": wanted}
    return train(grown.encoded, folder, architecture, {**STAR, **model}, training, 3, "cpu", False, **given)


@pytest.mark.parametrize("wanted", ["champion", 2])
def test_training_goes_on_from_a_registered_model_and_tells_what_it_kept(
    grown: Tiny, packages: Packages, tracked: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, wanted: str | int
) -> None:
    caplog.set_level(logging.INFO)
    _, history = run(grown, tmp_path, wanted)
    assert "domains: 3 kept, 1 new, 0 left out" in caplog.text
    assert "item_id: 30 values kept" in caplog.text
    assert "The scores of the first 180 validation rows are unchanged." in caplog.text
    _, cold = run(grown, tmp_path, None)
    assert history["train_loss"].iloc[0] < cold["train_loss"].iloc[0] - 0.02  # a rate of 1e-9 teaches nothing


def test_training_goes_on_from_the_folder_of_a_package_too(
    grown: Tiny, packages: Packages, tracked: Path, tmp_path: Path
) -> None:
    start = warm_start.find(grown.variant.key, "star", packages[0]["path"])
    assert "fcn.layers.0.weight" in start.weights  # what was trained, not what is served
    write, _ = run(grown, tmp_path, packages[0]["path"])
    folder = tmp_path / "model"
    folder.mkdir()
    write(folder)
    assert json.loads((folder / "model.json").read_text())["inputs"]["domains"] == 4


def test_another_configuration_or_architecture_is_refused_with_what_differs(
    grown: Tiny, packages: Packages, tracked: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigurationError, match=r"other options \(hidden: \[16, 8\] then, \[8\] now\)"):
        run(grown, tmp_path, "champion", hidden=[8])
    with pytest.raises(ConfigurationError, match="is the architecture 'star', not 'dnn'"):
        run(grown, tmp_path, packages[0]["path"], architecture="dnn")


def test_what_is_no_package_or_holds_folded_weights_alone_is_refused(
    packages: Packages, tracked: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigurationError, match="is no packaged model: it needs the folders"):
        warm_start.read(tmp_path)
    shutil.copytree(Path(packages[0]["path"]), tmp_path / "package")
    shutil.rmtree(tmp_path / "package" / "artifacts" / "training")
    with pytest.raises(ConfigurationError, match="only in the form that is served"):
        warm_start.read(tmp_path / "package")


def test_a_start_whose_scores_change_is_refused(
    grown: Tiny, packages: Packages, tracked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(warm_start, "TOLERANCE", -1.0)
    with pytest.raises(DataError, match="scores of 180 validation rows differ by up to"):
        run(grown, tmp_path, "champion")


def test_the_encoder_of_the_package_is_the_one_compared_with(tiny: Tiny, packages: Packages, tracked: Path) -> None:
    start = warm_start.find(tiny.variant.key, "star", "champion")
    assert start.encoder.inputs == Encoder.load(tiny.encoder).inputs
