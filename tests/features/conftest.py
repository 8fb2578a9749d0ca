from __future__ import annotations

import pytest
from feature_oracle import Bench, small_schema


@pytest.fixture
def data_root(tmp_path, monkeypatch):
    """An empty data folder for the registry and the online store."""
    monkeypatch.setenv("MULTIDOMAIN_DATA", str(tmp_path / "data"))
    return tmp_path / "data"


@pytest.fixture(scope="module")
def benches(tmp_path_factory):
    """One registered bench per split of the small log."""
    folder = tmp_path_factory.mktemp("benches")
    schema = small_schema(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MULTIDOMAIN_DATA", str(folder / "data"))
        made = {}
        for split in schema.splits:
            (folder / split.name).mkdir()
            made[split.name] = Bench(folder / split.name, schema.variant(split=split.name))
        yield made
