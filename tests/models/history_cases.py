"""What the tests of ADS and of its backbones share: a whole model by hand, from the equations for one row."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import attention_oracle as oracle
import numpy as np

from multidomain.batch import Batch
from multidomain.models.ads import ADS
from multidomain.models.base import MultiDomainModel


def network(s: oracle.State, prefix: str, x: np.ndarray) -> float:
    layers = sorted({key.split(".")[-2] for key in s if key.startswith(f"{prefix}.layers.")}, key=int)
    for number, layer in enumerate(layers, start=1):
        x = s[f"{prefix}.layers.{layer}.weight"] @ x + s[f"{prefix}.layers.{layer}.bias"]
        x = np.maximum(x, 0) if number < len(layers) else x
    return x.item()


def logits_by_hand(model: MultiDomainModel, batch: Batch, kind: str) -> list[float]:
    """Eq. 1-13 for a model on ``SCHEMA`` whose domains training met all: s beside the other embeddings, MLP, sigmoid.

    E_Q is item and genre, E_S their histories, E_D the domain and genre (its distribution feature).
    """
    s = oracle.state(model)
    table, found = s["inputs.embedding.table.weight"], []
    start = {"user": 0, "item": 12, "genre": 32}
    for row in range(len(batch)):
        user, item, genre = batch.categorical[row].tolist()
        e_user, e_item, e_genre = (
            table[start["user"] + user],
            table[start["item"] + item],
            table[start["genre"] + genre],
        )
        clicked, genres = (batch.history[name][row].numpy() for name in ("clicked", "clicked_genre"))
        bag = batch.bags["genres"][row].numpy()
        bag = bag[bag > 0]
        e_bag = table[start["genre"] + bag].mean(0) if len(bag) else np.zeros_like(e_user)
        e_year = batch.numerical[row].double().numpy() * s["inputs.embedding.numerical_weight"][0]
        e_d = np.zeros(0)
        if "inputs.distribution.domain.weight" in s:
            e_d = np.concatenate([s["inputs.distribution.domain.weight"][int(batch.domain[row])], e_genre])
        e_s = np.concatenate([table[start["item"] + clicked], table[start["genre"] + genres]], axis=1)
        e_q = np.concatenate([e_item, e_genre])
        interest = oracle.encode(oracle.part(s, "inputs.history."), kind, e_d, e_s, e_q, clicked > 0)  # Eq. 2-12
        means = np.zeros(0)
        if model.inputs.embedding.pool_history:  # beside it
            count = max((clicked > 0).sum(), 1)
            means = (e_s * (clicked > 0)[:, None]).sum(0) / count
        e_all = np.concatenate([e_user, e_item, e_genre, interest, means, e_bag, e_year])
        if isinstance(model, ADS):
            e_all = np.concatenate([e_all, e_d])
        logit = network(s, "mlp", e_all)  # Eq. 13
        if any(key.startswith("auxiliary.") for key in s):
            condition = e_d[: len(e_user)]  # distribution: domain
            logit += network(s, "auxiliary.mlp", np.concatenate([condition, e_all]))
        found.append(logit)
    return found


def network_parameters(widths: Sequence[int]) -> int:
    return sum((i + 1) * o for i, o in itertools.pairwise(widths))


def backbone_parameters(d_s: int, kind: str, *, attention_dim: int = 32, heads: int = 4) -> int:
    """With d_Q = d_S, also the width of the output."""
    if kind == "din":
        return (4 * d_s + 1) * attention_dim + 1 + attention_dim + 1  # the slope of PReLU between
    if kind == "mha":
        return 4 * heads * d_s * attention_dim  # W_Q, W_K, W_V, W_O
    micro = d_s * 8 + 8 * 4
    return (d_s + 1) * micro + 3 * (8 + 4) * d_s


def generator_parameters(d_s: int, d_d: int, length: int, *, items: int = 1, hidden: int = 32) -> int:
    """PSRG and PCRG."""
    psrg = d_s**2 + network_parameters([d_d, hidden, d_s**2]) + network_parameters([d_d, hidden, d_s])
    return psrg + network_parameters([d_d + d_s, hidden, -(-length // items) * d_s])


def baseline_parameters(model: MultiDomainModel, kind: str, **options: int) -> int:
    """Backbone, network 16-8-1, the vector of the numerical field, the auxiliary network and its domains."""
    c, d, domains = model.inputs.width, model.inputs.embedding_dim, model.schema.domains
    auxiliary = (domains + 1) * d + network_parameters([d + c, 64, 1])
    return backbone_parameters(2 * d, kind, **options) + network_parameters([c, 16, 8, 1]) + d + auxiliary


def parameters(model: MultiDomainModel) -> int:
    """All but the embedding table."""
    return sum(p.numel() for name, p in model.named_parameters() if name != "inputs.embedding.table.weight")
