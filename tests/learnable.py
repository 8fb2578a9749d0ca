"""A small encoded log whose labels can be learnt, for the tests of training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from multidomain.calibration import logistic
from multidomain.inputs import InputSchema
from multidomain.models import build
from multidomain.models.base import MultiDomainModel
from multidomain.tensor_writer import TensorWriter
from multidomain.tensors import EncodedSplit
from multidomain.training.config import TrainingConfig
from multidomain.training.loop import fit
from multidomain.training.prediction import predicted_logits

INPUTS = InputSchema(
    domains=3,
    vocabularies={"user": 40, "item": 30, "genre": 6},
    categorical=("user", "item"),
    numerical=("age",),
    history={"past_item": "item"},
    history_length=4,
    bags={"genres": "genre"},
)


def write_encoded(folder: Path, rows: dict[str, int], *, inputs: InputSchema = INPUTS, seed: int = 0) -> Path:
    """Users and items have a taste each, and every domain a bias of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "inputs.json").write_text(json.dumps(inputs.to_dict()))
    (folder / "domains.json").write_text(json.dumps([f"domain {i}" for i in range(inputs.domains)]))
    random = np.random.default_rng(seed)
    states = 50
    tastes = {name: random.normal(size=size) for name, size in inputs.vocabularies.items()}
    with TensorWriter(folder, inputs, rows=rows, states=states) as writer:
        for field, vocabulary in inputs.history.items():
            lists = random.integers(1, inputs.vocabularies[vocabulary], size=(states, inputs.history_length))
            lists[0] = 0
            writer.write_states(field, np.arange(states), lists)
        for split, count in rows.items():
            arrays = {
                "categorical": _ids(random, count, inputs, inputs.categorical),
                "numerical": random.normal(size=(count, len(inputs.numerical))),
                "domain": random.choice(inputs.domains, size=count, p=_shares(inputs.domains)),
            }
            for field, vocabulary in inputs.bags.items():
                arrays[f"bag_{field}"] = random.integers(0, inputs.vocabularies[vocabulary], size=(count, 3))
            score = arrays["domain"] - 1.0 + arrays["numerical"].sum(1)
            for column, name in enumerate(inputs.categorical):
                score = score + tastes[name][arrays["categorical"][:, column]]
            label = random.random(count) < 1 / (1 + np.exp(-score))
            state = random.integers(0, states, size=count) if inputs.history else None
            writer.write(split, arrays, label=label, state=state)
    return folder


def fitted(folder: Path, checkpoints: Path, **config: Any) -> MultiDomainModel:
    """A small network trained on what :func:`write_encoded` left, two epochs unless ``config`` says otherwise."""
    torch.manual_seed(0)
    model = build("dnn", INPUTS, embedding_dim=4, hidden=[16])
    splits = EncodedSplit(folder, "train"), EncodedSplit(folder, "validation")
    chosen = TrainingConfig(**({"epochs": 2, "batch_size": 200, "learning_rate": 0.02} | config))
    fit(model, *splits, chosen, seed=1, device="cpu", checkpoints=checkpoints, show_progress=False)
    return model


def probabilities(model: MultiDomainModel, split: EncodedSplit) -> np.ndarray:
    """Of a click, for every row: (N,)."""
    return logistic(predicted_logits(model, split, "cpu").astype(np.float64))


def _ids(random: np.random.Generator, count: int, inputs: InputSchema, fields: tuple[str, ...]) -> np.ndarray:
    columns = [random.integers(1, inputs.vocabularies[name], size=count) for name in fields]
    return np.stack(columns, axis=1) if columns else np.zeros((count, 0), np.int64)


def _shares(domains: int) -> np.ndarray:
    """Domain i is half as frequent as domain i - 1."""
    weights = 0.5 ** np.arange(domains)
    return weights / weights.sum()
