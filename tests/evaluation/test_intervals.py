"""Intervals of metrics, against drawing users again."""

from __future__ import annotations

import math

import numpy as np
import pytest

from multidomain.evaluation import intervals, metrics


def clicks(users: int = 150, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Labels, two models' scores and users, whose rows share a taste and are of uneven number."""
    rng = np.random.default_rng(seed)
    user = np.repeat(np.arange(users), rng.integers(5, 40, users))
    taste = rng.normal(size=users)[user] - 1
    item = rng.normal(size=len(user))
    label = (rng.random(len(user)) < 1 / (1 + np.exp(-taste - item))).astype(float)
    first, second = (
        1 / (1 + np.exp(-0.6 * taste - weight * item - rng.normal(size=len(user)))) for weight in (1.0, 0.7)
    )
    return label, first, second, user


def drawn_again(measure, user: np.ndarray, times: int = 400) -> float:
    """Standard deviation of a measure over samples of users, drawn with replacement."""
    rng, users = np.random.default_rng(1), int(user.max()) + 1
    rows = [np.flatnonzero(user == one) for one in range(users)]
    found = []
    for _ in range(times):
        chosen = rng.integers(0, users, users)
        at = np.concatenate([rows[one] for one in chosen])
        again = np.repeat(np.arange(users), [len(rows[one]) for one in chosen])  # a user drawn twice is two users
        found.append(measure(at, again))
    return float(np.std(found))


@pytest.mark.parametrize(
    ("name", "measure"),
    [
        ("auc", lambda y, s, at, user: metrics.auc(y[at], s[at])),
        ("gauc", lambda y, s, at, user: metrics.gauc(y[at], s[at], user)[0]),
        ("pcoc", lambda y, s, at, user: metrics.pcoc(y[at], s[at])),
        ("logloss", lambda y, s, at, user: metrics.logloss(y[at], s[at])),
    ],
)
def test_the_standard_error_is_the_spread_over_samples_of_users(name, measure) -> None:
    label, score, _, user = clicks()
    found = intervals.of_model(label, score, user, user)[name]
    assert found.value == pytest.approx(measure(label, score, slice(None), user), abs=1e-12)
    spread = drawn_again(lambda at, again: measure(label, score, at, again), user)
    assert found.standard_error == pytest.approx(spread, rel=0.15)
    assert found.low < found.value < found.high


@pytest.mark.parametrize(
    ("name", "measure"),
    [
        ("auc", lambda y, s, at, user: metrics.auc(y[at], s[at])),
        ("gauc", lambda y, s, at, user: metrics.gauc(y[at], s[at], user)[0]),
        ("logloss", lambda y, s, at, user: metrics.logloss(y[at], s[at])),
    ],
)
def test_a_difference_is_as_sure_as_samples_of_users_say(name, measure) -> None:
    label, first, second, user = clicks()
    found = intervals.of_difference(label, first, second, user, user)[name]

    def difference(at, again) -> float:
        return measure(label, first, at, again) - measure(label, second, at, again)

    assert found.value == pytest.approx(difference(slice(None), user), abs=1e-12)
    assert found.standard_error == pytest.approx(drawn_again(difference, user), rel=0.15)


def test_a_ratio_by_hand() -> None:
    found = intervals.ratio(np.array([1.0, 3.0, 0.0]), np.array([2.0, 2.0, 0.0]))  # the third cluster has no rows
    assert found.value == 1.0
    assert found.standard_error == pytest.approx(math.sqrt(2 * ((1 - 2) ** 2 + (3 - 2) ** 2)) / 4)


def test_what_is_undefined_has_no_interval() -> None:
    none = intervals.of_model(np.zeros(3), np.full(3, 0.2), np.arange(3), np.arange(3))
    assert math.isnan(none["auc"].value)
    assert math.isnan(none["pcoc"].value)
    assert none["logloss"].value > 0
    assert math.isnan(intervals.ratio(np.ones(1), np.ones(1)).standard_error)


def test_groups_within_users_are_counted_with_their_user() -> None:
    """GAUC by session: the sessions of a user are not independent of each other."""
    label, score, _, user = clicks()
    session = user * 2 + (np.arange(len(user)) % 2)
    found = intervals.of_model(label, score, session, user)["gauc"]
    assert found.value == pytest.approx(metrics.gauc(label, score, session)[0], abs=1e-12)
