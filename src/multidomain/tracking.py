"""Where runs and models are recorded: an MLflow of this project's own, or the server of ``$MLFLOW_TRACKING_URI``."""

from __future__ import annotations

import hashlib
import logging
import os
import re
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .schema import project_root

if TYPE_CHECKING:
    from mlflow import MlflowClient

_DEFAULTS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "1",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "5",  # a server has a minute to come back; with MLflow's 7 it has four
}
_ours: set[str] = set()  # MLflow writes the addresses it is given into the environment
BLOCK = 1 << 22  # bytes read at once
AT_ONCE = 1000  # metrics MLflow takes in one call
Value = tuple[tuple[str, ...], float, int]  # parts of a metric's name, value, step


def data_folder() -> Path:
    """``$MULTIDOMAIN_DATA``, or ``data`` below the project."""
    return Path(os.environ.get("MULTIDOMAIN_DATA") or project_root() / "data").absolute()


def connect() -> MlflowClient:
    """Point MLflow at its store and give a client of it.

    The store is ``$MLFLOW_TRACKING_URI`` where that is set, else ``<data>/mlflow/mlflow.db`` with its files beside it.
    Telemetry is off.
    """
    for name, value in _DEFAULTS.items():
        os.environ.setdefault(name, value)
    import mlflow

    for noisy in ("alembic", "mlflow"):
        if logging.getLogger(noisy).level in (logging.NOTSET, logging.INFO):
            logging.getLogger(noisy).setLevel(logging.WARNING)
    given, address = _given("MLFLOW_TRACKING_URI"), store()
    if given is None:
        _ours.add(address)
    if address != mlflow.get_tracking_uri():
        mlflow.set_tracking_uri(address)
        mlflow.set_registry_uri(_given("MLFLOW_REGISTRY_URI") or address)
    return mlflow.MlflowClient()


def store() -> str:
    """The address of MLflow's store. One that :func:`connect` put into the environment does not count as given."""
    given = _given("MLFLOW_TRACKING_URI")
    if given:
        return given
    folder = data_folder() / "mlflow"
    folder.mkdir(parents=True, exist_ok=True)
    return f"sqlite:///{folder / 'mlflow.db'}"


def on_a_server() -> bool:
    """Whether other machines see the same runs and models."""
    return store().startswith(("http://", "https://"))


def _given(variable: str) -> str | None:
    value = os.environ.get(variable)
    return None if value in _ours else value


def experiment(client: MlflowClient, name: str) -> str:
    """The id of the experiment of that name, made where there is none; a local one keeps its files below the data."""
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is None:
        local = store().removeprefix("sqlite:///")
        place = (Path(local).absolute().parent / "artifacts" / name).as_uri() if local != store() else None
        try:
            return str(client.create_experiment(name, artifact_location=place))
        except MlflowException:  # somebody else made it meanwhile
            found = client.get_experiment_by_name(name)
            if found is None:
                raise
    if found.lifecycle_stage == "deleted":
        client.restore_experiment(found.experiment_id)
    return str(found.experiment_id)


def write(
    client: MlflowClient,
    run: str,
    values: Iterable[Value],
    parameters: Mapping[str, Any],
    tags: Mapping[str, str],
) -> None:
    """Metrics, settings (nested ones as ``group.key``) and tags of a run."""
    from mlflow.entities import Metric, Param, RunTag

    now = int(time.time() * 1000)
    metrics = [Metric(metric_name(*parts), value, now, step) for parts, value, step in values]
    client.log_batch(
        run,
        params=[Param(key, str(value)[:6000]) for key, value in flat(parameters)],
        tags=[RunTag(key, value) for key, value in tags.items()],
    )
    for start in range(0, len(metrics), AT_ONCE):
        client.log_batch(run, metrics=metrics[start : start + AT_ONCE])


def model_name(key: str, architecture: str) -> str:
    """``multidomain-<dataset>-<variant>-<architecture>``, the registered model of ``key`` (``<dataset>/<variant>``)."""
    return f"multidomain-{key.replace('/', '-')}-{architecture}"


def metric_name(*parts: str) -> str:
    """Parts joined by slashes, with what MLflow does not take in a name replaced by ``_``."""
    return "/".join(re.sub(r"[^\w\-. ]", "_", part, flags=re.ASCII) for part in parts)[:250]


def flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested settings as ``group.key`` and value."""
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            yield from flat(value, f"{name}.")
        else:
            yield name, value


def fingerprint(*places: Path) -> str:
    """A digest of the names and contents of files and folders."""
    digest = hashlib.blake2b(digest_size=12)
    for place in places:
        files = [place] if place.is_file() else sorted(path for path in place.rglob("*") if path.is_file())
        for path in files:
            digest.update(f"{path.relative_to(place.parent).as_posix()}\0{path.stat().st_size}\0".encode())
            with path.open("rb") as stream:
                while block := stream.read(BLOCK):
                    digest.update(block)
    return digest.hexdigest()


def git_revision(folder: Path | None = None) -> str:
    """The commit checked out in the project, with ``-dirty`` where files differ from it; ``none`` without one."""
    root = folder or project_root()

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(root), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("-dirty" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return "none"
