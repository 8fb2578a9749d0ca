"""One package, scored everywhere: in process, as pyfunc, by onnxruntime, `mlflow models serve` and our service.

    python -m benchmarks.engines --architecture star --rows 10000

Needs what ``kedro run --pipeline=train_star --params=package.onnx=true`` leaves in ``$MULTIDOMAIN_DATA``, and for the
service its champion and ``kedro run --pipeline=materialize``. The same test
rows go to each; the table says how far the scores are from those of ``predictions.parquet``, how long the rows took in
one thread, encoder included, and how long 100 rows do (median of 50).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from multidomain import schema, tracking

from .service import service

FEW, TIMES = 100, 50
AT_ONCE = 250  # rows of a request to the service
Score = Callable[[pd.DataFrame], np.ndarray]


def main() -> None:
    """Read the rows, score them, tell."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.engines", description=__doc__)
    parser.add_argument("--dataset", default="movielens")
    parser.add_argument("--architecture", default="star")
    parser.add_argument("--rows", type=int, default=10_000)
    given = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    variant = schema.load(given.dataset).variant()
    tracking.connect()
    reports = tracking.data_folder() / "08_reporting" / variant.key / given.architecture
    package = Path(json.loads((reports / "package.json").read_text(encoding="utf-8"))["path"])
    rows, wanted = delivered(variant, reports, given.rows)
    print(f"{variant.key}, {given.architecture}, {len(rows):,} test rows, {package}")
    with engines(package) as found, service(given.dataset, given.architecture, 1, None) as (address, _):
        for name, score in {**found, "service, POST /score": asked(address, columns(package))}.items():
            report(name, score, rows, wanted)


def delivered(variant: schema.Variant, reports: Path, count: int) -> tuple[pd.DataFrame, np.ndarray]:
    """Test rows, spread evenly, as the feature stage delivers them, and what the run predicted for them."""
    import duckdb

    frame = tracking.data_folder() / "04_feature" / variant.key / "training_frame.parquet"
    scored = pd.read_parquet(reports / "predictions.parquet", columns=["impression_id", "score"])
    chosen = scored.iloc[np.unique(np.linspace(0, len(scored) - 1, count).astype(int))]
    query = f"SELECT f.* FROM read_parquet('{frame}') f SEMI JOIN chosen USING (impression_id) WHERE f.split = 'test'"
    rows = duckdb.sql(query).to_arrow_table().to_pandas().merge(chosen, on="impression_id", validate="one_to_one")
    return rows.drop(columns="score"), rows["score"].to_numpy()


@contextlib.contextmanager
def engines(package: Path) -> Iterator[dict[str, Score]]:
    """Whatever scores rows, by name."""
    import mlflow
    import torch

    torch.set_num_threads(1)
    models = {name: mlflow.pyfunc.load_model(str(package), model_config={"engine": name}) for name in ("torch", "onnx")}
    inputs = models["torch"].metadata.get_input_schema().input_names()

    def scorer(name: str) -> Score:
        return lambda rows: np.asarray(models[name].unwrap_python_model().scorer.predict(rows)["score"])

    def pyfunc(name: str) -> Score:
        return lambda rows: np.asarray(models[name].predict(rows[inputs])["score"])

    with served(package, inputs) as over_http:
        yield {
            "in process, PyTorch": scorer("torch"),
            "in process, onnxruntime": scorer("onnx"),
            "pyfunc, PyTorch": pyfunc("torch"),
            "pyfunc, onnxruntime": pyfunc("onnx"),
            "mlflow models serve": over_http,
        }


@contextlib.contextmanager
def served(package: Path, inputs: list[str]) -> Iterator[Score]:
    """A server of its own process, asked in JSON."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    command = [sys.executable, "-m", "mlflow", "models", "serve", "--env-manager", "local", "--workers", "1"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--model-uri", str(package)]
    with tempfile.TemporaryFile() as log, tempfile.TemporaryDirectory() as folder:
        found = {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}  # uvicorn, by its name
        server = subprocess.Popen(command, cwd=folder, env=os.environ | found, stdout=log, stderr=subprocess.STDOUT)
        try:
            for _ in range(600):
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                    break
                time.sleep(0.2)

            def score(rows: pd.DataFrame) -> np.ndarray:
                body, kind = as_json(rows[inputs]), {"Content-Type": "application/json"}
                request = urllib.request.Request(f"http://127.0.0.1:{port}/invocations", body, kind)
                with urllib.request.urlopen(request, timeout=600) as answer:
                    return np.array([one["score"] for one in json.loads(answer.read())["predictions"]])

            yield score
        finally:
            server.terminate()
            server.wait(20)


def columns(package: Path) -> list[str]:
    """What the package reads."""
    import mlflow

    names: list[str] = mlflow.models.get_model_info(str(package)).signature.inputs.input_names()
    return names


def asked(address: str, inputs: list[str]) -> Score:
    """The service, which must hold the same package, asked in JSON so many rows at a time as it takes."""

    def some(rows: pd.DataFrame) -> list[float]:
        body = [dict(zip(inputs, map(_plain, row), strict=True)) for row in rows[inputs].itertuples(index=False)]
        kind = {"Content-Type": "application/json"}
        request = urllib.request.Request(f"{address}/score", json.dumps({"rows": body}).encode(), kind)
        with urllib.request.urlopen(request, timeout=60) as answer:
            scores: list[float] = json.loads(answer.read())["scores"]
        return scores

    def score(rows: pd.DataFrame) -> np.ndarray:
        return np.array([one for i in range(0, len(rows), AT_ONCE) for one in some(rows.iloc[i : i + AT_ONCE])])

    return score


def as_json(rows: pd.DataFrame) -> bytes:
    """A request's body, in which numbers keep all their digits.

    ``DataFrame.to_json`` rounds to ten: a number that lies on the edge of a bucket falls into another.
    """
    data = [[_plain(value) for value in row] for row in rows.itertuples(index=False)]
    return json.dumps({"dataframe_split": {"columns": list(rows.columns), "data": data}}).encode()


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    return None if value is None or value != value else value.item() if isinstance(value, np.generic) else value


def report(name: str, score: Score, rows: pd.DataFrame, wanted: np.ndarray) -> None:
    """One line."""
    few = rows.iloc[:FEW]
    score(few)
    start = time.perf_counter()
    found = score(rows)
    seconds, taken = time.perf_counter() - start, []
    for _ in range(TIMES):
        start = time.perf_counter()
        score(few)
        taken.append(1000 * (time.perf_counter() - start))
    farthest = float(np.abs(found - wanted).max())
    print(
        f"{name:<24} differs by at most {farthest:.1e}   {len(rows) / seconds:>9,.0f} rows/s"
        f"   {FEW} rows: {statistics.median(taken):.1f} ms"
    )


if __name__ == "__main__":
    main()
