"""Stale outputs are found, misspelt parameters refused."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from kedro.io import DataCatalog, DatasetError
from kedro.pipeline import Pipeline, node
from kedro_datasets.json import JSONDataset

from multidomain.digests import digest_file, expected_digests
from multidomain.errors import ConfigurationError, DataError
from multidomain.hooks import ProjectHooks, _check_parameters
from multidomain.io import SchemaFile
from multidomain.output_hooks import OutputHooks
from multidomain.training import torchrun


def double(x: int) -> int:
    return 2 * x


def add(x: int, y: int) -> int:
    return x + y


PIPELINE = Pipeline([node(double, "params:x", "doubled"), node(add, ["doubled", "params:y"], "total")])


def catalog(folder: Path, x: int = 1, y: int = 1, store: str | None = None) -> DataCatalog:
    made = DataCatalog({name: JSONDataset(filepath=str(folder / f"{name}.json")) for name in ("doubled", "total")})
    made["params:x"], made["params:y"], made["params:output_store"] = x, y, store
    return made


def register_pipelines() -> None:
    """Those of these tests are the project's."""
    from kedro.framework.project import pipelines

    pipelines._pipelines_module = None
    later = PIPELINE.only_nodes_with_inputs("doubled")
    pipelines._content = {"__default__": PIPELINE, "prepare": PIPELINE, "later": later}
    pipelines._is_data_loaded = True


def run(
    folder: Path, pipeline: Pipeline = PIPELINE, only_missing: bool = True, name: str = "__default__", **parameters: Any
) -> list[str]:
    """Run through the hooks as a session would; the names of the datasets that were written."""
    from kedro.framework.hooks.manager import _create_hook_manager
    from kedro.runner import SequentialRunner

    register_pipelines()
    hooks, manager, here = OutputHooks(), _create_hook_manager(), catalog(folder, **parameters)
    manager.register(hooks)
    asked = {"only_missing_outputs": only_missing, "pipeline_names": [name]}
    hooks.before_pipeline_run(run_params=asked, pipeline=pipeline, catalog=here)
    before = {name: (folder / f"{name}.json").exists() for name in ("doubled", "total")}
    SequentialRunner().run(pipeline, here, manager, only_missing_outputs=only_missing)
    return [name for name, there in before.items() if not there]


def test_nothing_is_made_twice(tmp_path):
    assert run(tmp_path) == ["doubled", "total"]
    assert run(tmp_path) == []


def test_a_changed_parameter_makes_again_what_depends_on_it_and_nothing_else(tmp_path):
    run(tmp_path)
    assert run(tmp_path, y=5) == ["total"]
    assert (tmp_path / "total.json").read_text() == "7"
    assert run(tmp_path, x=3, y=5) == ["doubled", "total"]


def test_an_output_without_a_digest_is_not_trusted(tmp_path):
    run(tmp_path)
    digest_file(tmp_path / "total.json").unlink()
    assert run(tmp_path) == ["total"]


@pytest.fixture
def store() -> Iterator[str]:
    """An empty one, within this process."""
    fs = fsspec.filesystem("memory")
    fs.mkdir("/shop")
    yield "memory://shop/outputs"
    fs.rm("/shop", recursive=True)


@pytest.fixture
def machine(tmp_path, monkeypatch) -> Callable[[str], Path]:
    """Data folders of several machines; the one asked for last is that of now."""

    def of(name: str) -> Path:
        (tmp_path / name).mkdir(exist_ok=True)
        monkeypatch.setenv("MULTIDOMAIN_DATA", str(tmp_path / name))
        return tmp_path / name

    return of


def test_another_machine_takes_from_the_store_what_was_made_of_the_same(machine, store):
    assert run(machine("one"), store=store) == ["doubled", "total"]
    two = machine("two")
    assert run(two, store=store) == []
    assert (two / "total.json").read_text() == "3"
    assert run(two, store=store, y=5) == ["total"]  # of something else: made here, and now there
    assert run(machine("three"), store=store, y=5) == []
    assert run(machine("one"), store=store) == []  # what it has is as good as ever …
    assert run(machine("four"), store=store) == []  # … and was put there again


def test_a_run_that_starts_in_the_middle_takes_its_inputs_from_the_store(machine, store):
    run(machine("one"), store=store)
    later = PIPELINE.only_nodes_with_inputs("doubled")
    two = machine("two")
    assert run(two, later, only_missing=False, store=store) == ["doubled", "total"][1:]
    assert (two / "doubled.json").read_text() == "2"
    with pytest.raises(ConfigurationError, match=r"starts from 'doubled' .* is not there"):
        run(machine("three"), later, only_missing=False, store=store, x=9)


def test_a_store_that_was_away_gets_what_it_lacks_from_the_next_run(machine, store, monkeypatch):
    one = machine("one")
    with monkeypatch.context() as patch:
        patch.setattr(type(fsspec.filesystem("memory")), "pipe_file", _gone)
        with pytest.raises(DataError, match=rf"{store} \(output_store\) could not be written .*whole in {one}"):
            run(one, store=store)
    assert (one / "doubled.json").read_text() == "2"
    assert run(machine("two"), store=store) == ["doubled", "total"]
    assert run(machine("one"), store=store) == []
    assert (one / "total.json").read_text() == "3"


def _gone(*_: Any, **__: Any) -> None:
    raise ConnectionError("nobody answers")


def test_where_raw_files_and_copies_lie_makes_nothing_another(tmp_path):
    """A comparison reads all parameters: with a store it is what it was without."""
    compare = Pipeline([node(double, "parameters", "total")])
    found = set()
    for places in ({}, {"raw_folder": "/mnt/raw", "output_store": None}, {"output_store": "s3://shop/outputs"}):
        here = catalog(tmp_path)
        here["parameters"] = {"seed": 1, **places}
        found.add(expected_digests(compare, here)["total"])
    here["parameters"] = {"seed": 2}
    assert len(found) == 1
    assert expected_digests(compare, here)["total"] not in found


def test_a_report_of_a_registry_of_this_machine_stays_here(machine, store):
    register_pipelines()
    for name in ("one", "two"):
        here = catalog(machine(name), store=store)
        here["total"].metadata = {"tells_of": "feast"}
        found = OutputHooks()
        found.before_pipeline_run(run_params={"only_missing_outputs": True}, pipeline=PIPELINE, catalog=here)
        for output, value in (("doubled", 2), ("total", 3)):
            here.save(output, value)
            found.after_dataset_saved(dataset_name=output)
    stored = fsspec.filesystem("memory").find("/shop")
    assert [name.rpartition("/")[2] for name in stored] == [".doubled.json.json", "doubled.json"]


def test_starting_from_a_stale_input_is_refused(tmp_path):
    run(tmp_path)
    with pytest.raises(ConfigurationError, match=r"starts from 'doubled'.*made from another schema"):
        run(tmp_path, PIPELINE.from_inputs("doubled"), x=9)


def test_a_stage_run_by_itself_knows_what_its_input_should_be(tmp_path):
    later = PIPELINE.only_nodes_with_inputs("doubled")
    with pytest.raises(ConfigurationError, match=r"starts from 'doubled'.*is not there.*--pipeline=prepare"):
        run(tmp_path, later, name="later")
    run(tmp_path)
    with pytest.raises(ConfigurationError, match=r"starts from 'doubled'.*made from another schema"):
        run(tmp_path, later, name="later", x=9)
    (tmp_path / "total.json").unlink()
    assert run(tmp_path, later, name="later") == ["total"]
    assert run(tmp_path) == []


def test_the_digest_depends_on_values_and_on_nothing_else(tmp_path):
    first, same = expected_digests(PIPELINE, catalog(tmp_path)), expected_digests(PIPELINE, catalog(tmp_path / "other"))
    assert first == same
    assert first["total"] != expected_digests(PIPELINE, catalog(tmp_path, y=2))["total"]


def digest_of_what_is_read(
    folder: Path, monkeypatch: pytest.MonkeyPatch, description: str, raw_folder: str | None = None
) -> str:
    """The expected digest of an output made from a log whose one raw file is described so."""
    (folder / "clicks.yml").write_text(
        f"source: table\nfiles: {{log: {description}}}\nroles: {{}}\nlabels: {{click: clicked}}\n"
        "domains: {page: {column: page}}\nsplits: {random: {train: 0.8, validation: 0.1, test: 0.1}}\n"
        "features: {device: {}}\n"
    )
    monkeypatch.setenv("MULTIDOMAIN_SCHEMAS", str(folder))
    here = DataCatalog({"schema": SchemaFile(name="clicks")})
    here["params:raw_folder"] = raw_folder or str(folder)
    return expected_digests(Pipeline([node(double, "schema", "read")]), here)["read"]


@pytest.mark.parametrize(
    ("content", "other"),
    [(f"sha256: {'a' * 64}", f"sha256: {'b' * 64}"), ("fetch: log==1.0", "fetch: log==1.1")],
)
def test_fetching_a_raw_file_that_the_schema_describes_makes_nothing_stale(tmp_path, monkeypatch, content, other):
    before = digest_of_what_is_read(tmp_path, monkeypatch, f"{{path: log.csv, {content}}}")
    (tmp_path / "log.csv").write_text("fetched")
    assert digest_of_what_is_read(tmp_path, monkeypatch, f"{{path: log.csv, {content}}}") == before
    assert digest_of_what_is_read(tmp_path, monkeypatch, f"{{path: log.csv, {other}}}") != before


@pytest.mark.parametrize("description", ["log.csv", "{path: log.csv, fetch: 'https://example.org/log.zip'}"])
def test_a_raw_file_that_only_its_name_or_address_describes_makes_outputs_stale_when_it_changes(
    tmp_path, monkeypatch, description
):
    (tmp_path / "log.csv").write_text("one")
    before = digest_of_what_is_read(tmp_path, monkeypatch, description)
    assert digest_of_what_is_read(tmp_path, monkeypatch, description) == before
    (tmp_path / "log.csv").write_text("another")
    assert digest_of_what_is_read(tmp_path, monkeypatch, description) != before


@pytest.mark.parametrize("path", ["log.csv", "memory://digests/log.csv"])
def test_an_object_in_a_store_makes_outputs_stale_when_it_changes_there(tmp_path, monkeypatch, path):
    import fsspec

    store = fsspec.filesystem("memory")
    monkeypatch.setenv("MULTIDOMAIN_DATA", str(tmp_path / "data"))
    raw_folder = None if "://" in path else "memory://digests"
    store.pipe_file("/digests/log.csv", b"one")
    before = digest_of_what_is_read(tmp_path, monkeypatch, f"'{path}'", raw_folder)
    assert digest_of_what_is_read(tmp_path, monkeypatch, f"'{path}'", raw_folder) == before
    store.pipe_file("/digests/log.csv", b"two")
    assert digest_of_what_is_read(tmp_path, monkeypatch, f"'{path}'", raw_folder) != before
    assert not (tmp_path / "data").exists()  # nothing is copied for that
    store.rm("/digests", recursive=True)


def test_a_data_folder_in_an_object_store_is_refused_before_the_run(tmp_path, project):
    from types import SimpleNamespace

    from kedro.config import OmegaConfigLoader

    from multidomain.settings import CONFIG_LOADER_ARGS

    shutil.copytree(project / "conf", tmp_path / "conf")
    (tmp_path / "conf/bucket").mkdir()
    (tmp_path / "conf/bucket/globals.yml").write_text("data: s3://shop/data\n")
    loader = OmegaConfigLoader(str(tmp_path / "conf"), env="bucket", **CONFIG_LOADER_ARGS)
    with pytest.raises(
        ConfigurationError,
        match=r"globals\.yml: data is s3://shop/data.*Raw logs may lie in an object store.*output_store",
    ):
        ProjectHooks().after_context_created(SimpleNamespace(config_loader=loader))


DECLARED = {"seed": 1, "domain": None, "star": {"training": {"epochs": 3}}}


@pytest.mark.parametrize("given", [{"domain": "genre"}, {"star": {"training": {"epochs": 1}}}, {"seed": 2}])
def test_declared_parameters_are_accepted(given):
    _check_parameters(given, DECLARED)


def test_a_misspelt_parameter_is_refused_with_what_was_meant():
    with pytest.raises(ConfigurationError, match="'domian' is not known; did you mean 'domain'"):
        _check_parameters({"domian": "genre"}, DECLARED)


def test_a_group_given_for_a_single_value_is_refused():
    with pytest.raises(ConfigurationError, match="'seed' is one value"):
        _check_parameters({"seed": {"a": 1}}, DECLARED)


def test_a_users_error_is_said_plainly_where_kedro_has_wrapped_it():
    disk_full = DataError("The disk is full")
    wrapped = DatasetError("encoded: The disk is full")
    wrapped.__cause__ = DatasetError("Failed while saving")
    wrapped.__cause__.__cause__ = disk_full
    with pytest.raises(DataError) as raised:
        ProjectHooks().on_pipeline_error(error=wrapped)
    assert raised.value is disk_full
    assert ProjectHooks().on_pipeline_error(error=ValueError("a mistake in the code")) is None


def test_a_server_that_does_not_answer_is_named_with_what_to_do() -> None:
    redis = pytest.importorskip("redis")
    with pytest.raises(
        DataError, match=r"Redis, \$MULTIDOMAIN_REDIS\) does not answer: Error 111(.|\n)*--only-missing"
    ):
        ProjectHooks().on_pipeline_error(redis.exceptions.ConnectionError("Error 111 connecting to 127.0.0.1:1."))
    from mlflow.exceptions import MlflowException

    failed = MlflowException("API request failed")
    failed.__cause__ = ConnectionRefusedError(111, "refused")
    with pytest.raises(DataError, match=r"MLflow \(\$MLFLOW_TRACKING_URI\) does not answer: API request failed"):
        ProjectHooks().on_pipeline_error(failed)
    ProjectHooks().on_pipeline_error(MlflowException("no such model"))  # an answer, if not the one hoped for


def test_a_start_of_kedro_pays_for_none_of_the_large_libraries():
    program = (
        "import sys, multidomain.settings, multidomain.pipeline_registry as registry; registry.register_pipelines(); "
        "print([name for name in ('torch', 'feast', 'mlflow', 'great_expectations', 'pyspark') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("environment", "process"),
    [
        ({}, None),
        ({"RANK": "0", "WORLD_SIZE": "1"}, None),
        ({"WORLD_SIZE": "2"}, None),
        ({"RANK": "0", "WORLD_SIZE": "2"}, 0),
        ({"RANK": "1", "WORLD_SIZE": "2"}, 1),
    ],
)
def test_a_process_knows_its_place_under_torchrun(monkeypatch, environment, process):
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert torchrun.process() == process
