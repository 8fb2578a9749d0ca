"""Record a training in MLflow and register its model, once the packaged form scores like the run itself."""

from __future__ import annotations

import contextlib
import importlib.metadata
import logging
import math
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import tracking
from ..errors import DataError
from ..schema import Variant
from . import contents, days

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from mlflow import MlflowClient
    from mlflow.models import ModelSignature

    from ..evaluation.gate import Decision

logger = logging.getLogger(__name__)

CHAMPION, CHALLENGER = "champion", "challenger"
TOLERANCE, FOLDED_TOLERANCE = 1e-6, 1e-5  # of a score; weights folded for serving round differently
ONNX_TOLERANCE = 1e-5  # and so does onnxruntime
REQUIREMENTS = ("mlflow", "numpy", "pandas", "pyarrow", "safetensors", "torch")
EXAMPLES = 3
METRICS_AT_ONCE = 1000  # MLflow takes no more in one call
DOMAINS = 50  # the largest, in MLflow; metrics.json holds them all


@dataclass(frozen=True, kw_only=True)
class Training:
    """What one training left behind.

    Attributes:
        variant: what was trained on.
        architecture: the model's name.
        parameters: settings, nested.
        metrics: of the test split, as ``evaluation.report.evaluate`` returns them.
        history: one row per epoch, with a column ``epoch``.
        encoder, model, plots, insights: folders.
        data: a fingerprint of the encoded data.
        rows: of each split.
        onnx: whether the package gets an ONNX file.
        calibration: as :class:`calibration.Calibration` writes it; empty: none.
        reports: further files for the run: name -> what is written there as JSON.
        measured_on: which rows the metrics are of, where not of the test split.
        tags: further tags of the run.
        until: the last day of the log that it knows, where one was asked for.
        start: the registered version that training started from, where days follow each other.
    """

    variant: Variant
    architecture: str
    parameters: Mapping[str, Any]
    metrics: Mapping[str, Any]
    history: pd.DataFrame
    encoder: Path
    model: Path
    plots: Path
    insights: Path
    data: str
    rows: Mapping[str, int] = field(default_factory=dict)
    onnx: bool = False
    calibration: Mapping[str, Any] = field(default_factory=dict)
    reports: Mapping[str, Any] = field(default_factory=dict)
    measured_on: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    until: date | None = None
    start: str | None = None


def package(training: Training, rows: pd.DataFrame, scores: np.ndarray, decision: Decision) -> dict[str, Any]:
    """Record, package, check and register one training.

    Args:
        training: what to package.
        rows: (N, columns) rows of the test split as the feature stage delivers them.
        scores: (N,) what the run predicted for them.
        decision: of the quality gate: whether the version becomes champion.

    Returns:
        ``run_id, model, version, uri, alias, path, checks, gate``, ready for JSON.

    Raises:
        DataError: the packaged model, loaded back, scores ``rows`` differently. Nothing is registered then.
    """
    import mlflow

    client = tracking.connect()
    experiment = tracking.experiment(client, f"multidomain-{training.variant.schema.name}")
    name = tracking.model_name(training.variant.key, training.architecture)
    run_name = f"{training.variant.name}-{training.architecture}"
    nested = mlflow.active_run() is not None
    with mlflow.start_run(experiment_id=experiment, run_name=run_name, nested=nested) as run:
        _record(client, run.info.run_id, training)
        logged = _log_model(training, rows)
        tolerance = FOLDED_TOLERANCE if logged.metadata["folded"] else TOLERANCE
        checks = {**_check(logged.model_uri, rows, scores, tolerance), "folded": logged.metadata["folded"]}
        if training.onnx:
            checks["onnx"] = _check(logged.model_uri, rows, scores, ONNX_TOLERANCE, engine="onnx")
        version = _register(client, logged.model_uri, name)
    alias = _alias(client, name, version, decision)
    made = {
        "run_id": run.info.run_id,
        "model": name,
        "version": int(version),
        "uri": f"models:/{name}/{version}",
        "alias": alias,
        "path": _place(logged.artifact_path),
        "checks": checks,
        "gate": {"passed": decision.passed, "reasons": list(decision.reasons), **decision.figures},
    }
    days.keep(client, training, made)
    return made


def signature(encoder: Path, variant: Variant) -> ModelSignature:
    """The columns of a package with this encoder, typed as the feature stage delivers them.

    MLflow's whole numbers take no nulls, its floats take no whole numbers, and pandas delivers a column of whole
    numbers as one or the other, by whether a value is missing. Such columns are declared ``any``; the scorer converts
    and checks them.
    """
    import pyarrow as pa
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, Schema
    from mlflow.types.schema import AnyType, Array

    from ..encoder import Encoder
    from .rows import columns

    plain = {pa.string(): DataType.string, pa.int64(): DataType.long, pa.float64(): DataType.double}
    nullable = {feature.name: feature.nullable for feature in variant.features}
    whole = {feature.name for feature in variant.features if feature.value_type == "int" and feature.kind != "sequence"}
    specs: list[Any] = []
    for name, kind in columns(Encoder.load(encoder)).items():
        required = not nullable.get(name, name != "domain")
        if pa.types.is_list(kind):
            declared: Any = Array(plain[kind.value_type])
        elif name in whole:
            declared = DataType.long if required else AnyType()  # type: ignore[no-untyped-call]
        else:
            declared = plain[kind]
        specs.append(ColSpec(declared, name, required=required))
    return ModelSignature(inputs=Schema(specs), outputs=Schema([ColSpec(DataType.double, "score")]))


def requirements(*, onnx: bool = False) -> list[str]:
    """What a package needs installed, at the versions running now."""
    names = (*REQUIREMENTS, "onnxruntime") if onnx else REQUIREMENTS
    return [f"{name}=={importlib.metadata.version(name).split('+')[0]}" for name in names]


def _record(client: MlflowClient, run: str, training: Training) -> None:
    from mlflow.entities import Param, RunTag

    parameters = [Param(key, str(value)[:6000]) for key, value in tracking.flat(training.parameters)]
    tags = {
        "dataset": training.variant.schema.name,
        "variant": training.variant.name,
        "architecture": training.architecture,
        "data_fingerprint": training.data,
        "schema_digest": training.variant.schema.digest,
        "git_revision": tracking.git_revision(),
        **training.tags,
    }
    client.log_batch(run, params=parameters, tags=[RunTag(key, value) for key, value in tags.items()])
    measured = list(_metrics(training))
    for start in range(0, len(measured), METRICS_AT_ONCE):
        client.log_batch(run, metrics=measured[start : start + METRICS_AT_ONCE])
    client.log_artifacts(run, str(training.plots), "plots")
    client.log_artifacts(run, str(training.insights), "insights")
    for name, content in {"metrics": training.metrics, **training.reports}.items():
        client.log_dict(run, dict(content), f"{name}.json")
    client.log_text(run, training.history.to_csv(index=False), "history.csv")


def _metrics(training: Training) -> Iterator[Any]:
    import time

    from mlflow.entities import Metric

    from ..evaluation.report import largest

    now, prefix = int(time.time() * 1000), "prequential" if training.measured_on else "test"
    for name, value in training.metrics["overall"].items():
        if value is not None:
            yield Metric(f"{prefix}_{name}", value, now, 0)
    for domain in largest(training.metrics, DOMAINS):
        for name, value in training.metrics["domains"][domain].items():
            if value is not None:
                yield Metric(tracking.metric_name("domain", domain, name), value, now, 0)
    for row in training.history.to_dict(orient="records"):
        step = int(row.pop("epoch"))
        for name, value in row.items():
            if isinstance(value, int | float) and math.isfinite(value):
                yield Metric(tracking.metric_name(str(name)), float(value), now, step)


def _log_model(training: Training, rows: pd.DataFrame) -> Any:
    """Write the package and log it to the active run."""
    import mlflow

    declared = signature(training.encoder, training.variant)
    with tempfile.TemporaryDirectory() as scratch:
        made = contents.write(
            Path(scratch),
            encoder=training.encoder,
            model=training.model,
            card=contents.card_of(training),
            calibration=training.calibration,
            onnx=training.onnx,
        )
        mlflow.log_artifact(str(made.artifacts["card"]))
        example = rows[declared.inputs.input_names()].head(EXAMPLES).reset_index(drop=True)
        with path_kept():
            return mlflow.pyfunc.log_model(
                name=training.architecture,
                python_model=str(Path(__file__).with_name("loader.py")),
                artifacts={name: str(path) for name, path in made.artifacts.items()},
                code_paths=[str(made.code)],
                model_config={"package": made.code.name, "engine": "torch"},
                signature=declared,
                input_example=example,
                pip_requirements=requirements(onnx=made.onnx),
                metadata={
                    "dataset": training.variant.schema.name,
                    "variant": training.variant.name,
                    "architecture": training.architecture,
                    "data_fingerprint": training.data,
                    "folded": made.folded,
                    "onnx": made.onnx,
                },
            )


def _check(
    uri: str, rows: pd.DataFrame, scores: np.ndarray, tolerance: float, *, engine: str = "torch"
) -> dict[str, Any]:
    """Load the package back and score rows with it, through MLflow's own checks of their types."""
    import mlflow
    import numpy as np

    with path_kept():
        loaded = mlflow.pyfunc.load_model(uri, model_config={"engine": engine})
    names = loaded.metadata.get_input_schema().input_names()
    difference = np.abs(loaded.predict(rows[names])["score"].to_numpy() - scores)
    largest = float(difference.max(initial=0.0))
    if not largest <= tolerance:
        worst = int(np.argmax(np.nan_to_num(difference, nan=np.inf)))
        key = f"impression {rows['impression_id'].iloc[worst]}" if "impression_id" in rows else f"row {worst}"
        raise DataError(
            f"The packaged model{' (its ONNX file)' if engine == 'onnx' else ''} does not score like the run: "
            f"{int((~(difference <= tolerance)).sum()):,} of {len(rows):,} rows of the test split differ by more than "
            f"{tolerance:g}, the most by {largest:g} ({key}). Nothing was registered. Train and evaluate again, "
            "then package."
        )
    return {"rows": len(rows), "max_difference": largest, "tolerance": tolerance}


def _register(client: MlflowClient, uri: str, name: str) -> str:
    from mlflow.exceptions import MlflowException

    with contextlib.suppress(MlflowException):  # it exists already
        client.create_registered_model(name)
    run = uri.removeprefix("models:/") if uri.startswith("models:/") else None
    created = client.create_model_version(name, source=uri, model_id=run, run_id=_active_run())
    return str(created.version)


def _active_run() -> str:
    import mlflow

    run = mlflow.active_run()
    assert run is not None
    return str(run.info.run_id)


def _alias(client: MlflowClient, name: str, version: str, decision: Decision) -> str:
    """Champion if the gate let it pass, else challenger; why is in the version's tags and in the log."""
    alias = CHAMPION if decision.passed else CHALLENGER
    client.set_model_version_tag(name, version, "gate", "passed" if decision.passed else "refused")
    for number, reason in enumerate(decision.reasons, start=1):
        client.set_model_version_tag(name, version, f"gate_reason_{number}", reason)
    for figure, value in decision.figures.items():
        client.set_model_version_tag(name, version, f"gate_{figure}", f"{value:.6f}")
    client.set_registered_model_alias(name, alias, version)
    said = " ".join(decision.reasons)
    level = logging.INFO if decision.passed and not said else logging.WARNING
    logger.log(level, "registered %s version %s as %s%s", name, version, alias, f": {said}" if said else "")
    return alias


def _place(address: str) -> str:
    """A plain path where the files are on this machine."""
    from mlflow.utils.file_utils import local_file_uri_to_path

    if not address.startswith("file:"):
        return address
    return str(local_file_uri_to_path(address))  # type: ignore[no-untyped-call]


@contextlib.contextmanager
def path_kept() -> Iterator[None]:
    """MLflow puts the code of every model it loads on the search path; here it goes off it again."""
    before = list(sys.path)
    try:
        yield
    finally:
        sys.path[:] = before
