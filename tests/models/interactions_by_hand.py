"""What the NumPy evaluations of the single-domain baselines share, and the parameters all of them have."""

from __future__ import annotations

import numpy as np
from towers_by_hand import State, auxiliary_parameters

from multidomain.batch import Batch
from multidomain.models.base import MultiDomainModel


def first_order(model: MultiDomainModel, s: State, prefix: str, batch: Batch, row: int) -> float:
    """⟨w, x⟩ of one row: the weight of each id, mean weights of histories and bags, numbers times their weights."""
    schema = model.schema
    starts, start = {}, 0
    for name, size in schema.vocabularies.items():
        starts[name], start = start, start + size
    fields = [(name, batch.categorical[row, i : i + 1]) for i, name in enumerate(schema.categorical)]
    fields += [(vocabulary, batch.history[name][row]) for name, vocabulary in schema.history.items()]
    fields += [(vocabulary, batch.bags[name][row]) for name, vocabulary in schema.bags.items()]
    total = float(batch.numerical[row].double().numpy() @ s[f"{prefix}.numerical_weight"])
    for vocabulary, ids in fields:
        present = [starts[vocabulary] + i for i in ids.tolist() if i != 0]
        total += s[f"{prefix}.table.weight"][present, 0].mean() if present else 0.0
    return total


def layer_norm(x: np.ndarray) -> np.ndarray:
    return (x - x.mean()) / np.sqrt(x.var() + 1e-5)


def common_parameters(model: MultiDomainModel) -> int:
    """A vector per numerical field, and the auxiliary network."""
    return len(model.schema.numerical) * model.inputs.embedding_dim + auxiliary_parameters(model)
