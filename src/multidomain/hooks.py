"""What happens around a run: choices checked first, stale outputs found, results shown at the end."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import inspect
import json
import logging
import multiprocessing
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from kedro.framework.hooks import hook_impl
from kedro.io import DataCatalog
from kedro.pipeline import Pipeline
from kedro.pipeline.node import Node

from . import schema
from .errors import ConfigurationError, DataError, UserError, unknown_key
from .io.atomic import remove, replacing
from .resolvers import local
from .sources import files, objects
from .window import Window

logger = logging.getLogger(__name__)
ENGINES = ("duckdb", "spark")
SERVERS = {  # by the package whose error says so
    "redis": "The online store (Redis, $MULTIDOMAIN_REDIS)",
    "mlflow": "MLflow ($MLFLOW_TRACKING_URI)",
}
CHOICES = ("domain", "split", "features", "label")


class ProjectHooks:
    """Checks the parameters given on the command line, tells Feast where things are, prints the outcome."""

    def __init__(self) -> None:
        self._before: dict[str, str | None] = {}

    @hook_impl
    def after_context_created(self, context: Any) -> None:
        """A misspelt parameter, an unknown choice or a mistake in the schema ends the run before it starts.

        Under torchrun the first process goes on; the others take part in its trainings and end here.
        """
        if _worker() > 0:
            from .training.workers import serve

            serve()
            raise SystemExit(0)
        loader = context.config_loader
        given, loader.runtime_params = loader.runtime_params or {}, {}
        try:
            declared = loader["parameters"]
        finally:
            loader.runtime_params = given
        _check_parameters(given, declared)
        local(str(loader["globals"]["data"]), name="globals.yml: data")
        _choose_engine(loader)
        choice = {**declared, **given}
        schema.load(str(choice["dataset"])).variant(**{name: choice[name] for name in CHOICES})

    @hook_impl
    def before_pipeline_run(self, pipeline: Pipeline, catalog: DataCatalog) -> None:
        """Check what models are configured with; tell the feature repository and MLflow where things are."""
        _check_models(pipeline, catalog)
        _check_comparison(pipeline, catalog)
        variant = catalog.load("variant")
        views = _path(catalog, "feature_views")
        stores = os.environ.get("MULTIDOMAIN_FEATURE_STORE") or catalog.load("params:feature_store")
        settings = {
            "MULTIDOMAIN_FEATURE_STORE": stores,
            "MULTIDOMAIN_DATA": str(views.parents[3]) if views else "",
            "MULTIDOMAIN_DATASET": variant.schema.name,
            "MULTIDOMAIN_VARIANT": variant.name,
        }
        self._before = {name: os.environ.get(name) for name in settings}
        os.environ.update(settings)
        logger.info("data set %s, variant %s", variant.schema.name, variant.name)

    @hook_impl
    def before_node_run(self, node: Node) -> None:
        """Say what is being done."""
        logger.info("· %s", node.name.replace("_", " "))

    @hook_impl
    def after_pipeline_run(self, pipeline: Pipeline, catalog: DataCatalog) -> None:
        """Metrics per domain, and where everything is."""
        self._restore()
        if _worker() == 0:
            from .training.workers import dismiss

            dismiss()
        _show_results(pipeline, catalog)

    @hook_impl
    def on_pipeline_error(self, error: Exception) -> None:
        """Leave the environment as it was; say a user's error plainly where Kedro has wrapped it in one of its own."""
        self._restore()
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, UserError):
            cause = cause.__cause__
        if cause is not None and cause is not error:
            raise cause from None
        if cause is None and (said := _unreachable(error)) is not None:
            raise said from error

    def _restore(self) -> None:
        for name, value in self._before.items():
            os.environ.pop(name, None) if value is None else os.environ.update({name: value})
        self._before = {}


def _worker() -> int:
    """Which process of torchrun this is; -1: of none, or the only one."""
    beside = int(os.environ.get("WORLD_SIZE", "1")) > 1 and multiprocessing.parent_process() is None
    return int(os.environ.get("RANK", "-1")) if beside else -1


class DigestHooks:
    """Every output carries a digest of what made it; one that differs counts as missing.

    Kedro's ``--only-missing-outputs`` looks at existence alone. Here each file or folder has a ``.<name>.digest``
    beside it: a hash of the node's code, its parameters, the schema and the digests of its inputs.
    """

    def __init__(self) -> None:
        self._expected: dict[str, str] = {}
        self._catalog: DataCatalog | None = None

    @hook_impl(trylast=True)
    def before_pipeline_run(self, run_params: dict[str, Any], pipeline: Pipeline, catalog: DataCatalog) -> None:
        """Remove stale outputs where only missing ones are made; refuse inputs that are stale or were never made."""
        from kedro.framework.project import pipelines

        names = run_params.get("pipeline_names") or ["__default__"]
        full = sum((pipelines[name] for name in (*names, "prepare")), Pipeline([]))
        self._catalog = catalog
        self._expected = expected_digests(full, catalog)
        for name in sorted(pipeline.inputs() & full.all_outputs()):
            _check_input(name, catalog, self._expected)
        if run_params.get("only_missing_outputs"):
            for name in sorted(pipeline.all_outputs()):
                _forget_stale_output(name, catalog, self._expected)

    @hook_impl
    def before_dataset_saved(self, dataset_name: str) -> None:
        """Whatever is there now is no longer what its digest says."""
        path = self._catalog and _path(self._catalog, dataset_name)
        if path and dataset_name in self._expected:
            digest_file(path).unlink(missing_ok=True)

    @hook_impl
    def after_dataset_saved(self, dataset_name: str) -> None:
        """Stamp what was written."""
        path = self._catalog and _path(self._catalog, dataset_name)
        if path and dataset_name in self._expected:
            with replacing(digest_file(path)) as temporary:
                temporary.write_text(self._expected[dataset_name], encoding="utf-8")


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
    from .io import Choice, PaperTable, SchemaFile, WorkingFolder

    if name.startswith("params:") or name == "parameters":
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
    path = _path(catalog, name)
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


def _path(catalog: DataCatalog, name: str) -> Path | None:
    """Where a dataset is kept, or None if it lives in memory."""
    filepath = getattr(catalog.get(name), "_filepath", None)
    return Path(str(filepath)) if filepath is not None else None


def _is_stale(path: Path, expected: str) -> bool:
    recorded = digest_file(path)
    return path.exists() and (not recorded.exists() or recorded.read_text(encoding="utf-8") != expected)


def _forget_stale_output(name: str, catalog: DataCatalog, expected: Mapping[str, str]) -> None:
    path = _path(catalog, name)
    if path and _is_stale(path, expected[name]):
        logger.info("%s was made from another schema, parameters, input or code: it is made again (%s)", name, path)
        remove(path)
        remove(digest_file(path))


def _check_input(name: str, catalog: DataCatalog, expected: Mapping[str, str]) -> None:
    path = _path(catalog, name)
    if path and not path.exists():
        raise ConfigurationError(
            f"This part of the pipeline starts from '{name}' ({path}), which is not there. Run what makes it first, "
            "with the same choices: kedro run --pipeline=prepare."
        )
    if path and _is_stale(path, expected[name]):
        raise ConfigurationError(
            f"This part of the pipeline starts from '{name}' ({path}), which was made from another schema, other "
            "parameters, inputs or code than those of now. Run the whole pipeline with --only-missing-outputs: it "
            "makes again what is stale."
        )


def _choose_engine(loader: Any) -> None:
    """Tables are those of the environment's ``engine``."""
    from kedro.config import MissingConfigException

    from .io.connection import use_spark
    from .io.spark_options import SparkOptions

    engine = loader["globals"].get("engine", ENGINES[0])
    if engine not in ENGINES:
        raise ConfigurationError(f"globals.yml: engine: there is no '{engine}'. Allowed: {', '.join(ENGINES)}.")
    if engine == "duckdb":
        use_spark(None)
        return
    where = f"conf/{loader.env}/spark.yml"
    try:
        given = loader["spark"]
    except MissingConfigException as error:
        raise ConfigurationError(f"{where} is missing: it says how Spark is reached.") from error
    use_spark(SparkOptions.of(given, where=where))


def _unreachable(error: BaseException) -> UserError | None:
    """A server that did not answer, in one message; None where the error is something else."""
    chain: list[BaseException] = []
    while error is not None and error not in chain:
        chain.append(error)
        error = error.__cause__ or error.__context__  # type: ignore[assignment]
    for one in chain:
        server = SERVERS.get(type(one).__module__.split(".")[0])
        if server and any(isinstance(cause, OSError) or "Connection" in type(cause).__name__ for cause in chain):
            first = next((line for line in str(one).splitlines() if line.strip()), type(one).__name__)
            return DataError(
                f"{server} does not answer: {first.strip()[:300]}\nStart it, then run the same command again, with "
                "--only-missing-outputs: what is finished is not done again."
            )
    return None


def _check_parameters(given: Mapping[str, Any], declared: Mapping[str, Any], prefix: str = "") -> None:
    """Every parameter of the command line must exist in the configuration."""
    for key, value in given.items():
        if key not in declared:
            if prefix:  # a key below a model's section: its own code knows which options exist beside those listed
                continue
            raise ConfigurationError(f"parameter {unknown_key(prefix + str(key), [prefix + str(k) for k in declared])}")
        if isinstance(value, Mapping):
            if not isinstance(declared[key], Mapping):
                raise ConfigurationError(
                    f"parameter '{prefix}{key}' is one value, not a group of parameters: {dict(value)}."
                )
            _check_parameters(value, declared[key], f"{prefix}{key}.")


def _check_models(pipeline: Pipeline, catalog: DataCatalog) -> None:
    """A misspelt option of a model or of its training ends the run before the data is prepared."""
    if "params:package" in pipeline.inputs():
        from .packaging.options import PackageOptions

        PackageOptions.of(catalog.load("params:package"))
    if "params:window" in pipeline.inputs():
        Window.read(catalog.load("params:window"))
    if "params:stream" in pipeline.inputs():
        from .streaming.options import StreamOptions

        StreamOptions.read(catalog.load("params:stream"))
    sections = [name.removesuffix(".training") for name in sorted(pipeline.inputs()) if name.endswith(".training")]
    if not sections:
        return
    from .comparison.entries import check_options

    for section in sections:
        check_options(
            section.removeprefix("params:"), catalog.load(f"{section}.model"), catalog.load(f"{section}.training")
        )


def _check_comparison(pipeline: Pipeline, catalog: DataCatalog) -> None:
    """A misspelt model, option or table ends the run before the data is prepared."""
    outputs = pipeline.all_outputs()
    if "compared" in outputs:
        from .comparison.entries import Comparison

        Comparison.of(catalog.load("parameters"))
    if "reproduced" in outputs:
        from .comparison import entries, papers

        parameters = catalog.load("parameters")
        papers.planned(papers.load(parameters["table"]), parameters)
        entries.seeds(chosen := entries.section(parameters))
        entries.workers(chosen)


def _show_results(pipeline: Pipeline, catalog: DataCatalog) -> None:
    outputs = pipeline.all_outputs()
    if "leaderboard" in outputs:
        _show_leaderboard(catalog)
    if "reproduction" in outputs:
        _show_table(catalog)
    if "parity" in outputs:
        _show_parity(catalog)
    if "freshness" in outputs:
        _show_freshness(catalog)
    for name in sorted(outputs):
        if name.endswith(".stream_report"):
            _show_stream(catalog, name.removesuffix(".stream_report"))
    made = [name.removesuffix(".metrics") for name in sorted(pipeline.all_outputs()) if name.endswith(".metrics")]
    if not made:
        return
    from rich.console import Console

    from .evaluation.report import summary

    console = Console()
    for architecture in made:
        console.print(summary(catalog.load(f"{architecture}.metrics"), title=architecture))
        for label, path in _written(pipeline, catalog, architecture):
            console.print(f"  {label:<12} {path}", soft_wrap=True, highlight=False)


def _show_leaderboard(catalog: DataCatalog) -> None:
    from rich.console import Console

    from .comparison.leaderboard import summary

    table, comparison = catalog.load("leaderboard").to_pandas(), catalog.load("comparison")
    table = table.sort_values("auc_mean", ascending=False, kind="stable")
    title = f"Models on {catalog.load('variant').key}"
    console = Console()
    console.print(summary(table, comparison["tests"], title=title, base=comparison["base"]))
    for note in comparison["notes"]:
        console.print(note, highlight=False)
    for label, name in (
        ("leaderboard", "leaderboard"),
        ("page", "leaderboard_page"),
        ("results", "comparison_results"),
    ):
        console.print(f"  {label:<12} {_relative(_path(catalog, name))}", soft_wrap=True, highlight=False)


def _show_table(catalog: DataCatalog) -> None:
    from rich.console import Console
    from rich.markdown import Markdown

    folder = catalog.load("reproduction")
    console = Console()
    lines = (folder / "table.md").read_text(encoding="utf-8").splitlines()
    console.print(Markdown("\n".join(line for line in lines if not line.startswith("!["))))
    console.print(f"  {'table':<12} {_relative(folder)}", soft_wrap=True, highlight=False)


def _show_stream(catalog: DataCatalog, architecture: str) -> None:
    from rich.console import Console

    found, console = catalog.load(f"{architecture}.stream_report"), Console()
    console.print(
        f"{architecture}: {found['learnt']:,} rows learnt in {found['steps']:,} steps, {found['rejected']:,} rejected; "
        f"{found['entered']:,} values entered the vocabularies, {found['left']:,} left",
        highlight=False,
    )
    for version in found["versions"]:
        said = " ".join(version["gate"]["reasons"])
        console.print(f"  after {version['rows']:,} rows: version {version['version']}, {version['alias']} {said}")
    for label, name in (("windows", "prequential"), ("plots", "stream_plots"), ("kept", "stream_kept")):
        console.print(f"  {label:<12} {_relative(_path(catalog, f'{architecture}.{name}'))}", soft_wrap=True)


def _show_parity(catalog: DataCatalog) -> None:
    from rich.console import Console
    from rich.table import Table

    found = catalog.load("parity")
    title = f"Offline against online, {found['rows']:,} impressions at {len(found['moments'])} moments"
    table = Table("feature", "equal", "differing", "missing", title=title)
    for line in found["features"]:
        table.add_row(line["feature"], *(f"{line[name]:,}" for name in ("equal", "differing", "missing")))
    console = Console()
    console.print(table)
    passed = [name for name, report in found["checks"].items() if report is not None]
    console.print(f"checked before: {', '.join(passed)}", highlight=False)
    console.print(f"scores of {found['model']} differ by at most {found['score_difference']:.2g}", highlight=False)
    console.print(f"  {'parity':<12} {_relative(_path(catalog, 'parity'))}", soft_wrap=True, highlight=False)


def _show_freshness(catalog: DataCatalog) -> None:
    from rich.console import Console

    from .serving.freshness_report import summary

    found = catalog.load("freshness")
    against = found["at"] or "the newest row of each view's table"
    console = Console()
    console.print(summary(found, title=f"Newest values online against {against}"))
    for label, name in (("page", "freshness_page"), ("freshness", "freshness")):
        console.print(f"  {label:<12} {_relative(_path(catalog, name))}", soft_wrap=True, highlight=False)


def _written(pipeline: Pipeline, catalog: DataCatalog, architecture: str) -> Iterator[tuple[str, Path]]:
    """The outputs of one architecture and where they are, relative to here where possible."""
    for name in ("model", "metrics", "predictions", "history", "plots", "insights", "package"):
        if f"{architecture}.{name}" in pipeline.all_outputs():
            path = _path(catalog, f"{architecture}.{name}")
            if path:
                yield name, _relative(path)


def _relative(path: Path | None) -> Path:
    """A path relative to here where possible."""
    here = path or Path()
    with contextlib.suppress(ValueError):
        return here.relative_to(Path.cwd())
    return here
