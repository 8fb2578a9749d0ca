"""Clicks that depend on earlier clicks: the impressions of all users are played forward, one of each user at a time."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .effects import MATCHES, WINDOWS
from .world import Floats, Ints, Rows

NOTHING = -1


def play(
    rows: Rows, *, logit: Floats, weights: Floats, chance: Floats, length: int
) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """The signals of every row (N, K), made of the user's last ``length`` clicks before it, and who clicked (N,).

    Args:
        rows: N impressions.
        logit: (N,) what does not depend on the history.
        weights: (N, K) of the signals.
        chance: (N,) uniform random numbers: a row is clicked where its probability is larger.
        length: clicks that are remembered, as many as the feature stage delivers.
    """
    signals = np.zeros(weights.shape)
    clicked = np.zeros(len(rows), dtype=bool)
    memory = {name: np.full((rows.cards["user"], length), NOTHING, dtype=np.int64) for name in MATCHES}
    for now in _steps(rows.position):
        user = rows["user"][now]
        signals[now] = matches({name: memory[name][user] for name in MATCHES}, rows, now)
        probability = sigmoid(logit[now] + (weights[now] * signals[now]).sum(axis=1))
        clicked[now] = chance[now] < probability
        for name, codes in memory.items():
            _remember(codes, user[clicked[now]], rows[name][now[clicked[now]]])
    return signals, clicked


def matches(earlier: dict[str, Ints], rows: Rows, now: Ints) -> Floats:
    """(n, K): by window and feature, how many of the earlier clicks are like the candidate, above what chance gives.

    The number of likes in a window of w clicks, less q = 1/card for each click there, in units of √(w · q · (1-q)).

    Args:
        earlier: category, brand -> (n, T) of the last T clicks, the most recent last, -1 where there were fewer.
        rows: all impressions.
        now: (n,) the rows at hand.
    """
    found = []
    for start, stop in WINDOWS:
        for name in MATCHES:
            latest_first = earlier[name][:, ::-1][:, start:stop]
            width, q = latest_first.shape[1], 1 / rows.cards[name]
            like = (latest_first == rows[name][now, None]) - q * (latest_first != NOTHING)
            found.append(like.sum(axis=1) / np.sqrt(max(width, 1) * q * (1 - q)))
    return np.stack(found, axis=1)


def sigmoid(logit: Floats) -> Floats:
    """1 / (1 + exp(-logit))"""
    probability: Floats = 1.0 / (1.0 + np.exp(-logit))
    return probability


def _steps(position: Ints) -> list[Ints]:
    """The rows of each position: every user's first, every user's second, …"""
    order = np.argsort(position, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(position[order])) + 1)


def _remember(memory: Ints, users: Ints, codes: Ints) -> None:
    """Put one more code at the end of these users' rows; the oldest goes."""
    memory[users, :-1] = memory[users, 1:]
    memory[users, -1] = codes
