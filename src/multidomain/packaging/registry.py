"""Finding the registered models of this project."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import tracking
from ..errors import ConfigurationError
from ..io.atomic import remove
from .package import CHAMPION, path_kept

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from .scorer import Scorer


def find(key: str, architecture: str, version: int | str | None = None) -> tuple[str, str]:
    """Name and version of the model of ``key`` (``<dataset>/<variant>``): the champion, or the version asked for.

    ``version`` may be a number, the name of an alias, or ``latest``.

    Raises:
        ConfigurationError: there is no such model; the message lists those there are and how to train one.
    """
    from mlflow.exceptions import MlflowException

    client = tracking.connect()
    name = tracking.model_name(key, architecture)
    versions = sorted(int(found.version) for found in _search(client, name))
    if not versions:
        raise ConfigurationError(_no_model(client, key, architecture))
    wanted = str(version if version is not None else CHAMPION)
    if wanted == "latest":
        return name, str(versions[-1])
    if wanted.isdigit():
        if int(wanted) in versions:
            return name, wanted
    else:
        try:
            return name, str(client.get_model_version_by_alias(name, wanted).version)
        except MlflowException:
            pass
    aliases = sorted(client.get_registered_model(name).aliases)
    raise ConfigurationError(
        f"The model {name} has no version or alias '{wanted}'. It has the versions "
        f"{', '.join(map(str, versions))} and the aliases {', '.join(aliases) or '(none)'}; choose one with "
        "--params=version=..."
    )


def load(name: str, version: str) -> Any:
    """The registered model as an MLflow pyfunc."""
    import mlflow

    tracking.connect()
    with path_kept():
        return mlflow.pyfunc.load_model(f"models:/{name}/{version}")


def scorer(name: str, version: str) -> Scorer:
    """What scores rows with a registered model; see :func:`find` for its name and version."""
    found: Scorer = load(name, version).unwrap_python_model().scorer
    return found


def of_variant(key: str) -> dict[str, int]:
    """The registered models of ``<dataset>/<variant>``: name -> number of versions."""
    from ..models import architectures

    client = tracking.connect()
    versions = {name: len(_search(client, name)) for name in (tracking.model_name(key, one) for one in architectures())}
    return {name: count for name, count in versions.items() if count}


def delete(name: str) -> None:
    """Delete a registered model with all its versions, and the files of those that lie in this project's MLflow."""
    client = tracking.connect()
    folder = (tracking.data_folder() / "mlflow" / "artifacts").resolve()
    for version in _search(client, name):
        logged = version.model_id or str(version.source).removeprefix("models:/")
        if logged.startswith("m-"):
            place = Path(_plain(client.get_logged_model(logged).artifact_location)).resolve()
            client.delete_logged_model(logged)
            if place.is_relative_to(folder) and place != folder:
                remove(place)
    client.delete_registered_model(name)


def _plain(address: str) -> str:
    from mlflow.utils.file_utils import local_file_uri_to_path

    return str(local_file_uri_to_path(address))  # type: ignore[no-untyped-call]


def _search(client: MlflowClient, name: str) -> list[Any]:
    return list(client.search_model_versions(f"name='{name}'"))


def _no_model(client: MlflowClient, key: str, architecture: str) -> str:
    dataset, variant = key.split("/", 1)
    others = sorted(m.name for m in client.search_registered_models() if m.name.startswith("multidomain-"))
    there = f"There are: {', '.join(others)}." if others else "There is none at all yet."
    domain, split, features, label = variant.split("-")
    params = f"dataset={dataset},domain={domain},split={split},features={features},label={label}"
    return (
        f"No model '{architecture}' is registered for {key}. {there} Train one with: "
        f"kedro run --pipeline=train_{architecture} --params={params}"
    )
