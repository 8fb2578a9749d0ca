"""A small log of three domains taken through encode, train, evaluate and package, for the tests of what comes after."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from multidomain import schema
from multidomain.io import Folder, ParquetTable
from multidomain.pipelines.encode.nodes import encode, fit_encoder
from multidomain.pipelines.evaluate.account import account, cost
from multidomain.pipelines.evaluate.nodes import calibrate, draw, evaluate, explain, predict
from multidomain.pipelines.package.nodes import package
from multidomain.pipelines.train.nodes import train

DOMAINS = ("home", "search", "detail page")
SCHEMA = """
source: table
files: {impressions: log.parquet}
roles: {user: user_id, item: item_id, timestamp: time}
labels: {click: clicked}
domains: {place: {column: place, minimum: 1}}
splits: {user_time: {}}
features:
  user_id: {owner: user, type: string, nullable: false}
  gender: {owner: user, type: string}
  age: {owner: user, type: int}
  item_id: {owner: item, type: string, nullable: false}
  genre: {owner: item, type: string}
  tags: {owner: item, kind: sequence, type: string, length: 3}
  codes: {owner: item, kind: sequence, type: int, length: 2}
  year: {owner: item, kind: numerical, type: int, buckets: 4}
  price: {kind: numerical, type: float, transform: value}
  hour: {type: int, nullable: false}
history:
  positives: {length: 4, fields: {item_id: item_id, genre: genre}}
counts: [user]
"""
MODELS: dict[str, dict[str, Any]] = {
    "star": {"embedding_dim": 4, "hidden": [16, 8]},
    "dnn": {"embedding_dim": 4, "hidden": [16, 8]},
    "adaptdhm": {"embedding_dim": 4, "hidden": [16, 8]},
}
TRAINING = {"epochs": 2, "batch_size": 64}


def variant(folder: Path) -> schema.Variant:
    """The tiny log's only variant."""
    path = folder / "tiny.yml"
    path.write_text(SCHEMA, encoding="utf-8")
    return schema.parse(path).variant()


def frame(rows: int = 900, seed: int = 0) -> pa.Table:
    """Rows as the feature stage delivers them: nulls, empty lists, whole numbers with and without gaps."""
    rng = np.random.default_rng(seed)

    def some(values: Any, share: float = 0.2) -> list[Any]:
        return [None if rng.random() < share else value for value in values]

    def lists(make: Any, longest: int) -> list[Any]:
        return some([[make() for _ in range(rng.integers(0, longest + 1))] for _ in range(rows)])

    def item() -> str:
        return f"i{rng.integers(30)}"

    def genre() -> str:
        return "abcd"[rng.integers(4)]

    user = [f"u{number}" for number in rng.integers(0, 40, rows)]
    items = [item() for _ in range(rows)]
    domain = rng.choice(3, rows, p=[0.5, 0.3, 0.2])
    chance = 0.2 + 0.2 * domain + 0.4 * np.array([int(i[1:]) % 2 for i in items]) * 0.8
    positives = lists(item, 6)
    split = np.array(["train"] * 6 + ["validation"] * 2 + ["test"] * 2)[np.arange(rows) * 10 // rows]
    columns: dict[str, Any] = {
        "impression_id": pa.array(range(rows), pa.int64()),
        "user": user,
        "item": items,
        "group": user,
        "timestamp": pa.array(np.arange(rows) * 1_000_000, pa.timestamp("us")),
        "domain": [DOMAINS[d] for d in domain],
        "domain_id": pa.array(domain, pa.int32()),
        "label": pa.array((rng.random(rows) < chance).astype(np.int8)),
        "split": split.tolist(),
        "user_id": user,
        "gender": some(rng.choice(["F", "M"], rows).tolist()),
        "age": pa.array(some(rng.integers(18, 60, rows).tolist()), pa.int64()),
        "item_id": items,
        "genre": some([genre() for _ in range(rows)]),
        "tags": pa.array(lists(lambda: "xyz"[rng.integers(3)], 4), pa.list_(pa.string())),
        "codes": pa.array(lists(lambda: int(rng.integers(5)), 3), pa.list_(pa.int64())),
        "year": pa.array(some(rng.integers(1950, 2001, rows).tolist()), pa.int64()),
        "price": pa.array(some(rng.lognormal(size=rows).tolist()), pa.float64()),
        "hour": pa.array(rng.integers(0, 24, rows), pa.int64()),
        "user_count": pa.array(rng.integers(0, 9, rows), pa.int64()),
        "user_rate": pa.array(rng.random(rows)),
        "positives_item_id": pa.array(positives, pa.list_(pa.string())),
        "positives_genre": pa.array(
            [None if p is None else ["abcd"[int(i[1:]) % 4] for i in p] for p in positives], pa.list_(pa.string())
        ),
        "positives_state": pa.array(np.arange(rows), pa.int64()),
    }
    return pa.table(columns)


@dataclass
class Tiny:
    """A variant and what each stage made of it, all below one folder."""

    folder: Path
    variant: schema.Variant
    training_frame: ParquetTable
    encoder: Path
    encoded: Path

    def train(self, architecture: str, seed: int, calibration: str | None = None) -> Trained:
        """Train, predict and evaluate one architecture, compared with no reference."""
        place = self.folder / f"{architecture}-{seed}-{calibration}"
        write, history = train(
            self.encoded, place / "checkpoints", architecture, MODELS[architecture], TRAINING, seed, "cpu"
        )
        model = _folder(place / "model", write)
        predictions = ParquetTable(filepath=str(place / "predictions.parquet"))
        curves = calibrate(self.encoded, model, calibration, "cpu")
        predictions.save(predict(self.variant, self.encoded, model, "cpu", curves))
        metrics = evaluate(predictions.load(), self.encoded)
        nothing, segments = (
            ParquetTable(filepath=str(place / f"{name}.parquet")) for name in ("reference", "segments")
        )
        nothing.save(predictions.load().limit(0).select("impression_id", "score", model="domain"))
        table, told = account(self.training_frame.load(), predictions.load(), nothing.load(), 30)
        segments.save(table)
        price = cost(self.encoded, model, history, "cpu")
        drawn = (self.variant, model, predictions.load(), metrics, history, segments.load(), told, price)
        plots = _folder(place / "plots", draw(*drawn))
        insights = _folder(place / "insights", explain(self.encoded, model, seed, "cpu"))
        given = (curves, nothing, segments, told, price)
        return Trained(self, architecture, seed, model, history, predictions, metrics, plots, insights, *given)


@dataclass
class Trained:
    """One trained architecture."""

    tiny: Tiny
    architecture: str
    seed: int
    model: Path
    history: pd.DataFrame
    predictions: ParquetTable
    metrics: dict[str, Any]
    plots: Path
    insights: Path
    calibration: dict[str, Any]
    reference: ParquetTable
    segments: ParquetTable
    account: dict[str, Any]
    cost: dict[str, Any]

    def package(self, **changed: Any) -> dict[str, Any]:
        """Record and register it in the MLflow of ``$MULTIDOMAIN_DATA``."""
        given: dict[str, Any] = {
            "variant": self.tiny.variant,
            "encoder": self.tiny.encoder,
            "encoded": self.tiny.encoded,
            "training_frame": self.tiny.training_frame.load(),
            "model": self.model,
            "history": self.history,
            "predictions": self.predictions.load(),
            "metrics": self.metrics,
            "plots": self.plots,
            "insights": self.insights,
            "architecture": self.architecture,
            "configuration": MODELS[self.architecture],
            "training": TRAINING,
            "seed": self.seed,
            "reference": self.reference.load(),
            "calibration": self.calibration,
            "account": self.account,
            "cost": self.cost,
        }
        return package(**{**given, **changed})


def prepare(folder: Path) -> Tiny:
    """Encode the tiny log below ``folder``."""
    chosen, rows = variant(folder), frame()
    training_frame = ParquetTable(filepath=str(folder / "training_frame.parquet"))
    training_frame.save(rows)
    domains = ParquetTable(filepath=str(folder / "domains.parquet"))
    domains.save(pa.table({"domain_id": pa.array([0, 1, 2], pa.int32()), "domain": list(DOMAINS)}))
    encoder = _folder(folder / "encoder", fit_encoder(chosen, training_frame.load(), domains.load()))
    encoded = _folder(folder / "encoded", encode(chosen, encoder, training_frame.load()))
    return Tiny(folder, chosen, training_frame, encoder, encoded)


def _folder(path: Path, write: Any) -> Path:
    dataset = Folder(filepath=str(path))
    dataset.save(write)
    return dataset.load()


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """A small log, encoded."""
    return prepare(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def stars(tiny: Tiny) -> tuple[Trained, Trained]:
    """STAR trained on it, with two seeds."""
    return tiny.train("star", 1), tiny.train("star", 2)


@pytest.fixture(scope="session")
def _mlflow_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("mlflow_data")


@pytest.fixture(scope="session")
def packages(_mlflow_data: Path, stars: tuple[Trained, Trained]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Both packaged as versions 1 and 2 of one model, in an MLflow of the tests' own; the gate refuses the second."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MULTIDOMAIN_DATA", str(_mlflow_data))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        return stars[0].package(), stars[1].package(gate={"pcoc_low": 5, "pcoc_high": 9})


@pytest.fixture
def apart(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty MLflow for one test that registers something: others count on the versions of ``packages``."""
    folder = tmp_path_factory.mktemp("mlflow_apart")
    monkeypatch.setenv("MULTIDOMAIN_DATA", str(folder))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return folder


@pytest.fixture
def tracked(monkeypatch: pytest.MonkeyPatch, _mlflow_data: Path) -> Path:
    """The MLflow that holds ``packages``, for one test that registers nothing."""
    monkeypatch.setenv("MULTIDOMAIN_DATA", str(_mlflow_data))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return _mlflow_data
