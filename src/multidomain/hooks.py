"""What happens around a run: choices checked first, stale outputs found, results shown at the end."""

from __future__ import annotations

import logging
import os
import textwrap
from collections.abc import Mapping
from typing import Any

from kedro.framework.hooks import hook_impl
from kedro.io import DataCatalog
from kedro.pipeline import Pipeline
from kedro.pipeline.node import Node

from . import outcome, schema
from .errors import ConfigurationError, DataError, UserError, unknown_key
from .io.datasets import place_of
from .resolvers import local
from .training import torchrun
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
        if (torchrun.process() or 0) > 0:
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
        views = place_of(catalog, "feature_views")
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
        if torchrun.process() == 0:
            from .training.workers import dismiss

            dismiss()
        outcome.show(pipeline, catalog)

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
            said = textwrap.shorten(first, 300, placeholder=" …")
            return DataError(
                f"{server} does not answer: {said}\nStart it, then run the same command again, with "
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
