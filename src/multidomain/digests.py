"""What each output was made of, as a digest beside it, and which outputs are stale because of it."""

from __future__ import annotations

import functools
import hashlib
import inspect
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kedro.io import DataCatalog
from kedro.pipeline import Pipeline
from kedro.pipeline.node import Node

from . import schema
from .errors import ConfigurationError
from .io.atomic import remove
from .io.datasets import Choice, PaperTable, SchemaFile, WorkingFolder, place_of
from .sources import files, objects

logger = logging.getLogger(__name__)
PLACES = ("raw_folder", "output_store")  # others on each machine; what lies there counts, which the schema's digest has


def digest_file(path: Path) -> Path:
    """Where the digest of a file or folder is kept."""
    return path.with_name(f".{path.name}.digest")


def expected_digests(pipeline: Pipeline, catalog: DataCatalog) -> dict[str, str]:
    """The digest each dataset of the pipeline would have if it were made now."""
    digests = {name: _source_digest(name, catalog) for name in pipeline.inputs()}
    for node in pipeline.nodes:
        made_of = _hash({"code": _code(node), "inputs": [digests[name] for name in sorted(node.inputs)]})
        for output in node.outputs:
            digests[output] = _hash([made_of, output])
    return digests


def _source_digest(name: str, catalog: DataCatalog) -> str:
    """Of a parameter its value, of the schema its text and the raw files it names, of a variant its name."""
    if name.removeprefix("params:") in PLACES:
        return ""
    if name == "parameters":
        return _hash({key: value for key, value in catalog.load(name).items() if key not in PLACES})
    if name.startswith("params:"):
        return _hash(catalog.load(name))
    dataset = catalog.get(name)
    if isinstance(dataset, WorkingFolder):
        return ""
    if isinstance(dataset, PaperTable):
        return str(dataset.load().digest)
    if isinstance(dataset, Choice):
        variant = dataset.load()
        return _hash([variant.schema.digest, variant.name])
    if isinstance(dataset, SchemaFile):
        parsed = dataset.load()
        folder = files.raw(catalog.load("params:raw_folder"))
        return _hash([parsed.digest, [_raw_stamp(folder, file) for file in parsed.files.values()]])
    path = place_of(catalog, name)
    return _hash(_stamp(path)) if path else ""


def _raw_stamp(folder: Path | str, file: schema.RawFile) -> list[Any]:
    """What the schema says is in the file, which holds before it is fetched too; otherwise what is found there."""
    content = file.sha256 or file.requirement
    if content:
        return [file.path, content]
    if stored := objects.stored(folder, file.path):
        return [file.path, objects.stamp(stored)]
    return [file.path, [_stamp(path) for path in files.outermost(folder, file)]]


def _stamp(path: Path) -> list[Any]:
    """Name, size and time of change; the name alone of what is not there."""
    if not path.exists():
        return [path.name]
    status = path.stat()
    return [path.name, status.st_size, status.st_mtime_ns]


def _code(node: Node) -> str:
    """The source of the module a node's function lives in."""
    function = node.func
    while isinstance(function, functools.partial):
        function = function.func
    module = inspect.getmodule(function)
    return _hash(inspect.getsource(module) if module else repr(function))


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:24]


def is_stale(path: Path, expected: str) -> bool:
    """Whether what is there was made from something else than what ``expected`` is the digest of."""
    recorded = digest_file(path)
    return path.exists() and (not recorded.exists() or recorded.read_text(encoding="utf-8") != expected)


def forget_stale_output(name: str, catalog: DataCatalog, expected: Mapping[str, str]) -> None:
    """Remove an output that was made from something else."""
    path = place_of(catalog, name)
    if path and is_stale(path, expected[name]):
        logger.info("%s was made from another schema, parameters, input or code: it is made again (%s)", name, path)
        remove(path)
        remove(digest_file(path))


def check_input(name: str, catalog: DataCatalog, expected: Mapping[str, str]) -> None:
    """Refuse an input that is not there or was made from something else.

    Raises:
        ConfigurationError: names the data set and its path, and says what to run.
    """
    path = place_of(catalog, name)
    if path and not path.exists():
        raise ConfigurationError(
            f"This part of the pipeline starts from '{name}' ({path}), which is not there. Run what makes it first, "
            "with the same choices: kedro run --pipeline=prepare."
        )
    if path and is_stale(path, expected[name]):
        raise ConfigurationError(
            f"This part of the pipeline starts from '{name}' ({path}), which was made from another schema, other "
            "parameters, inputs or code than those of now. Run the whole pipeline with --only-missing-outputs: it "
            "makes again what is stale."
        )
