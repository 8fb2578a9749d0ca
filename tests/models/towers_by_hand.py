"""The parts that the NumPy evaluations of several models share, one row at a time."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from multidomain.models.base import MultiDomainModel

State = dict[str, np.ndarray]


def state(model: MultiDomainModel) -> State:
    """All weights and buffers in double precision."""
    return {key: value.detach().double().numpy() for key, value in model.state_dict().items()}


def relu(x: np.ndarray) -> np.ndarray:
    return np.maximum(x, 0)


def softmax(x: np.ndarray) -> np.ndarray:
    shifted = np.exp(x - x.max())
    return shifted / shifted.sum()


def batch_normalized(s: State, z: np.ndarray) -> np.ndarray:
    """Batch normalization in evaluation: z (c,) -> (c,)."""
    n = "normalization."
    z = (z - s[n + "running_mean"]) / np.sqrt(s[n + "running_var"] + 1e-5)
    return s[n + "weight"] * z + s[n + "bias"]


def auxiliary(s: State, z: np.ndarray, p: int) -> float:
    """s_a of STAR, Eq. 7, for a row z (c,) of domain p."""
    a = "auxiliary.mlp.layers."
    x = np.concatenate([s["inputs.distribution.domain.weight"][p], z])
    hidden = relu(s[a + "0.weight"] @ x + s[a + "0.bias"])
    return (s[a + "1.weight"] @ hidden + s[a + "1.bias"]).item()


def tower(s: State, prefix: str, p: int, x: np.ndarray) -> float:
    """The network of domain p: ReLU on the hidden layers, a linear output."""
    layers = sum(key.startswith(prefix) and key.endswith("domain_weight") for key in s)
    for number in range(layers):
        x = x @ s[f"{prefix}{number}.domain_weight"][p] + s[f"{prefix}{number}.domain_bias"][p]
        x = relu(x) if number < layers - 1 else x
    return x.item()


def network(s: State, prefix: str, x: np.ndarray, *, linear_output: bool) -> np.ndarray:
    """A shared network of ``nn.Linear`` layers: ReLU on all, or on all but the last."""
    layers = sum(key.startswith(prefix) and key.endswith(".weight") for key in s)
    for number in range(layers):
        x = s[f"{prefix}{number}.weight"] @ x + s[f"{prefix}{number}.bias"]
        x = x if linear_output and number == layers - 1 else relu(x)
    return x


def dense(*widths: int) -> int:
    """Weights and biases of the layers between these widths."""
    return sum((i + 1) * o for i, o in pairwise(widths))


def auxiliary_parameters(model: MultiDomainModel) -> int:
    """The auxiliary network with the domain embedding it reads."""
    d = model.inputs.embedding_dim
    return (model.schema.domains + 1) * d + dense(d + model.inputs.width, 64, 1)


def input_parameters(model: MultiDomainModel) -> int:
    """A vector per numerical field, and the batch normalization's scale and bias."""
    return len(model.schema.numerical) * model.inputs.embedding_dim + 2 * model.inputs.width
