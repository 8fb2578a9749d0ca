"""The equations of ADS and of its three backbones for one row, written from the papers with loops, in double precision.

``s`` is the part of a state dict that belongs to the module, as arrays.
"""

from __future__ import annotations

import numpy as np
from torch import nn

State = dict[str, np.ndarray]


def state(module: nn.Module) -> State:
    return {key: value.detach().double().numpy() for key, value in module.state_dict().items()}


def part(s: State, prefix: str) -> State:
    return {key.removeprefix(prefix): value for key, value in s.items() if key.startswith(prefix)}


def generator(s: State, x: np.ndarray) -> np.ndarray:
    return s["2.weight"] @ np.maximum(s["0.weight"] @ x + s["0.bias"], 0) + s["2.bias"]


def psrg(s: State, e_d: np.ndarray, e_s: np.ndarray, eta: float = 2.0) -> np.ndarray:
    """(d_D,), (T, d_S) -> (T, d_S)."""
    w_private = 1 / (1 + np.exp(-generator(part(s, "weight_generator."), e_d)))  # Eq. 2
    w = eta * s["shared_weight"].reshape(-1) * w_private  # Eq. 3
    b = generator(part(s, "bias_generator."), e_d)  # Eq. 4
    return e_s @ w.reshape(len(b), len(b)).T + b  # Eq. 5


def pcrg(s: State, e_d: np.ndarray, e_q: np.ndarray, length: int) -> np.ndarray:
    """(d_D,), (d_Q,) -> (T, d_Q)."""
    private = generator(part(s, "generator."), np.concatenate([e_d, e_q])).reshape(-1, len(e_q))  # Eq. 6
    each = int(np.ceil(length / len(private)))
    repeated = np.repeat(private, each, axis=0)[-length:]  # chunks of adjacent items
    return repeated + np.stack([e_q] * length)  # Eq. 7


def _normalized(scores: np.ndarray, mask: np.ndarray) -> np.ndarray:
    z = np.exp(scores - scores.max()) * mask
    return z / z.sum() if mask.any() else z


def din_weights(
    s: State, queries: np.ndarray, events: np.ndarray, mask: np.ndarray, softmax: bool = True
) -> np.ndarray:
    scores = []
    for q, k in zip(queries, events, strict=True):
        hidden = s["hidden.weight"] @ np.concatenate([q, k, q - k, q * k]) + s["hidden.bias"]
        hidden = np.where(hidden > 0, hidden, s["activation.weight"] * hidden)
        scores.append((s["output.weight"] @ hidden + s["output.bias"]).item())
    if not softmax:
        return np.array(scores) * mask
    return _normalized(np.array(scores) / np.sqrt(events.shape[1]), mask)


def din(s: State, queries: np.ndarray, events: np.ndarray, mask: np.ndarray, softmax: bool = True) -> np.ndarray:
    weights = din_weights(s, queries, events, mask, softmax)
    return sum(w * k for w, k in zip(weights, events, strict=True))


def mha_weights(s: State, queries: np.ndarray, events: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """(heads, T)."""
    found = []
    for w_q, w_k in zip(s["query"], s["key"], strict=True):
        q, k = queries @ w_q, events @ w_k  # Eq. 8-9
        scores = [q[t] @ k[t] / np.sqrt(w_q.shape[1]) for t in range(len(k))]  # Eq. 11
        found.append(_normalized(np.array(scores), mask))
    return np.stack(found)


def mha(s: State, queries: np.ndarray, events: np.ndarray, mask: np.ndarray) -> np.ndarray:
    heads = []
    for z, w_v in zip(mha_weights(s, queries, events, mask), s["value"], strict=True):
        v = events @ w_v  # Eq. 10
        heads.append(sum(z[t] * v[t] for t in range(len(v))))  # Eq. 12
    return s["output.weight"] @ np.concatenate(heads)


def can(
    s: State, queries: np.ndarray, events: np.ndarray, mask: np.ndarray, micro=(8, 4), orders: int = 3
) -> np.ndarray:
    total = 0.0
    for q, e, present in zip(queries, events, mask, strict=True):
        p_item = s["generator.weight"] @ q + s["generator.bias"]
        found = []
        for order in range(1, orders + 1):
            h, start = e**order, 0
            for number, width in enumerate(micro, start=1):
                w = p_item[start : start + len(h) * width].reshape(len(h), width)
                start += w.size
                h = h @ w if number == len(micro) else np.tanh(h @ w)
                found.append(h)
        joined = np.concatenate(found)  # order by order, and in each layer by layer
        total = total + present * joined
    return s["output.weight"] @ total


ATTENTIONS = {"din": din, "mha": mha, "can": can}


def encode(s: State, kind: str, e_d: np.ndarray, e_s: np.ndarray, e_q: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """A history encoder, with the generators that its state has: (d_D,), (T, d_S), (d_Q,), (T,) -> (d_S,)."""
    events, queries = e_s, np.stack([e_q] * len(e_s))
    if any(key.startswith("sequence.") for key in s):
        events = psrg(part(s, "sequence."), e_d, e_s)
    if any(key.startswith("query.") for key in s):
        queries = pcrg(part(s, "query."), e_d, e_q, len(e_s))
    return ATTENTIONS[kind](part(s, "attention."), queries, events, mask)
