"""What the equations of several models have in common, row by row in NumPy, and how many parameters it takes."""

from __future__ import annotations

import itertools

import numpy as np
import torch

from multidomain.batch import Batch
from multidomain.inputs import UNKNOWN
from multidomain.models.base import MultiDomainModel


def weights(model: torch.nn.Module) -> dict[str, np.ndarray]:
    return {key: value.detach().double().numpy() for key, value in model.state_dict().items()}


def network(s: dict[str, np.ndarray], prefix: str, x: np.ndarray) -> np.ndarray:
    """Linear layers ``prefix.layers.0`` …, ReLU between them: (c,) -> (out,)."""
    last = sum(key.startswith(f"{prefix}.layers.") and key.endswith(".weight") for key in s) - 1
    for number in range(last + 1):
        x = s[f"{prefix}.layers.{number}.weight"] @ x + s[f"{prefix}.layers.{number}.bias"]
        x = np.maximum(x, 0) if number < last else x
    return x


def auxiliary(s: dict[str, np.ndarray], z: np.ndarray, domain: int) -> float:
    """s_a of STAR's Eq. 7 for a domain that training met."""
    x = np.concatenate([s["inputs.distribution.domain.weight"][domain], z])
    return network(s, "auxiliary.mlp", x).item()


def first_order(model: MultiDomainModel, s: dict[str, np.ndarray], prefix: str, batch: Batch, row: int) -> float:
    """⟨w, x⟩ of one row: the weight of each id, mean weights of histories and bags, numbers times their weights."""
    schema = model.schema
    starts, start = {}, 0
    for name, size in schema.vocabularies.items():
        starts[name], start = start, start + size
    total = 0.0
    fields = [(name, batch.categorical[row, i : i + 1]) for i, name in enumerate(schema.categorical)]
    fields += [(vocabulary, batch.history[name][row]) for name, vocabulary in schema.history.items()]
    fields += [(vocabulary, batch.bags[name][row]) for name, vocabulary in schema.bags.items()]
    for vocabulary, ids in fields:
        present = [starts[vocabulary] + i for i in ids.tolist() if i != 0]
        total += s[f"{prefix}.table.weight"][present, 0].mean() if present else 0.0
    return total + float(batch.numerical[row].double().numpy() @ s[f"{prefix}.numerical_weight"])


def known(ids: list[int]) -> bool:
    return all(i > UNKNOWN for i in ids)


def layer_norm(x: np.ndarray) -> np.ndarray:
    return (x - x.mean()) / np.sqrt(x.var() + 1e-5)


def network_parameters(*widths: int) -> int:
    """Of linear layers with biases."""
    return sum((i + 1) * o for i, o in itertools.pairwise(widths))


def input_parameters(model: MultiDomainModel) -> int:
    """Of the inputs but for the table, and of the auxiliary network: K·d + (M + 1)·d + its two layers."""
    d, c, M = model.inputs.embedding_dim, model.inputs.width, model.schema.domains
    return len(model.schema.numerical) * d + (M + 1) * d + network_parameters(d + c, 64, 1)


def parameters(model: MultiDomainModel) -> int:
    """All there are, but for the embedding table."""
    return sum(p.numel() for p in model.parameters()) - model.inputs.embedding.table.weight.numel()
