"""One package scored everywhere it can be: in process, by onnxruntime, and by `mlflow models serve`."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from servers import free_port, wait

from benchmarks.engines import as_json

if TYPE_CHECKING:
    from trained_variant import Tiny

pytest_plugins = ["trained_variant"]


@pytest.fixture(scope="module")
def package(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a STAR with an ONNX file, in an MLflow of its own: others count on their versions' numbers."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MULTIDOMAIN_DATA", str(tmp_path_factory.mktemp("mlflow_same_scores")))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        return Path(tiny.train("star", 3).package(options={"onnx": True})["path"])


@pytest.fixture(scope="module")
def address(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where `mlflow models serve` answers for it; the project is not on its path."""
    port, folder = free_port(), tmp_path_factory.mktemp("serve")
    outside = {key: value for key, value in os.environ.items() if not key.startswith(("MULTIDOMAIN", "PYTHON"))}
    outside["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{outside['PATH']}"  # MLflow starts uvicorn by its name
    command = [sys.executable, "-m", "mlflow", "models", "serve", "--env-manager", "local", "--workers", "1"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--model-uri", str(package)]
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(
            command, cwd=folder, env=outside | {"OMP_NUM_THREADS": "1"}, stdout=log, stderr=subprocess.STDOUT
        )
        try:
            wait(port, server, folder / "log", seconds=120)
            yield f"http://127.0.0.1:{port}/invocations"
        finally:
            server.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                server.wait(20)
            server.kill()


def asked(address: str, rows: pd.DataFrame) -> Any:
    request = urllib.request.Request(address, as_json(rows), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.loads(answer.read())


def rows_of(tiny: Tiny, columns: list[str]) -> pd.DataFrame:
    frame = tiny.training_frame.load()
    rows = frame.filter(frame.split == "test").order_by("impression_id").to_pandas()
    rows.loc[rows.index % 10 == 3, "domain"] = "elsewhere"
    return rows[columns]


def test_the_same_rows_have_the_same_scores_everywhere(tiny: Tiny, package: Path, address: str) -> None:
    import mlflow

    models = {name: mlflow.pyfunc.load_model(str(package), model_config={"engine": name}) for name in ("torch", "onnx")}
    rows = rows_of(tiny, models["torch"].metadata.get_input_schema().input_names())
    wanted = models["torch"].predict(rows)["score"].to_numpy()
    assert np.ptp(wanted) > 0.01
    np.testing.assert_allclose(models["onnx"].predict(rows)["score"], wanted, rtol=0, atol=1e-5)
    served = [one["score"] for one in asked(address, rows)["predictions"]]
    np.testing.assert_allclose(served, wanted, rtol=0, atol=1e-6)


def test_a_frame_that_misses_a_column_is_refused_naming_it(tiny: Tiny, package: Path, address: str) -> None:
    import mlflow

    names = mlflow.pyfunc.load_model(str(package)).metadata.get_input_schema().input_names()
    rows = rows_of(tiny, names).drop(columns="genre")
    for engine in ("torch", "onnx"):
        with pytest.raises(Exception, match="'genre'"):
            mlflow.pyfunc.load_model(str(package), model_config={"engine": engine}).predict(rows)
    with pytest.raises(urllib.error.HTTPError) as error:
        asked(address, rows)
    assert error.value.code == 400
    assert "'genre'" in error.value.read().decode()
