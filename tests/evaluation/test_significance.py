from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from multidomain.evaluation.metrics import auc
from multidomain.evaluation.significance import over_rows, over_seeds


def rows(count: int = 600, users: int = 40, seed: int = 0, ties: int | None = None):
    """Labels, two scores of different quality, users whose rows resemble each other."""
    random = np.random.default_rng(seed)
    user = random.integers(0, users, count)
    taste = random.normal(size=users)[user]
    label = (random.random(count) < 1 / (1 + np.exp(-taste))).astype(int)
    first = label + 0.5 * taste + random.normal(size=count)
    second = 0.6 * label + 0.5 * taste + random.normal(size=count)
    if ties:
        first, second = np.round(first * ties), np.round(second * ties)
    return label, first, second, user


def delong_by_pairs(label, first, second) -> tuple[float, float]:
    """Difference and variance, pair by pair as in Eq. 3-5 of DeLong et al.: no ranks."""
    v10, v01 = [], []
    for score in (first, second):
        higher = score[label == 1][:, None] - score[label == 0][None, :]
        psi = (higher > 0) + 0.5 * (higher == 0)
        v10.append(psi.mean(1))
        v01.append(psi.mean(0))
    covariance = np.cov(v10) / len(v10[0]) + np.cov(v01) / len(v01[0])
    contrast = np.array([1, -1])
    return v10[0].mean() - v10[1].mean(), contrast @ covariance @ contrast


def test_the_test_over_seeds_is_the_paired_t_test_of_scipy():
    first, second = [0.81, 0.812, 0.809, 0.815], [0.808, 0.811, 0.8095, 0.811]
    found = over_seeds(first, second)
    assert found.p == pytest.approx(stats.ttest_rel(first, second).pvalue, abs=1e-12)
    assert found.value == pytest.approx(np.mean(first) - np.mean(second))


def test_the_test_over_two_seeds_by_hand():
    found = over_seeds([0.5, 0.7], [0.4, 0.5])  # differences .1 and .2: mean .15, sd .0707, t = 3 with one degree
    assert found.value / found.standard_error == pytest.approx(3)
    assert found.p == pytest.approx(1 - 2 * math.atan(3) / math.pi)


def test_one_seed_has_no_test_and_an_undefined_value_neither():
    assert over_seeds([0.8], [0.7]) is None
    assert over_seeds([0.8, math.nan], [0.7, 0.7]) is None
    with pytest.raises(ValueError, match="as many values"):
        over_seeds([0.8, 0.7], [0.7])


def test_equal_models_do_not_differ():
    assert over_seeds([0.8, 0.7], [0.8, 0.7]).p == 1
    label, first, _, user = rows()
    found = over_rows(label, first, first, user)
    assert (found.value, found.p) == (0, 1)


@pytest.mark.parametrize("ties", [None, 2])
def test_rows_on_their_own_give_delongs_test_computed_pair_by_pair(ties):
    label, first, second, _ = rows(ties=ties)
    value, variance = delong_by_pairs(label, first, second)
    found = over_rows(label, first, second)
    assert found.value == pytest.approx(value, abs=1e-12)
    assert found.value == pytest.approx(auc(label, first) - auc(label, second), abs=1e-12)
    assert found.standard_error == pytest.approx(math.sqrt(variance), rel=1e-9)
    assert found.p == pytest.approx(2 * stats.norm.sf(abs(value) / math.sqrt(variance)), rel=1e-9)


def test_clusters_of_one_row_are_no_clusters():
    label, first, second, _ = rows()
    assert over_rows(label, first, second) == over_rows(label, first, second, np.arange(len(label))[::-1])


def test_the_standard_error_in_clusters_is_that_of_a_bootstrap_over_users():
    label, first, second, user = rows(count=2000, users=80)
    second = second + 2.0 * np.random.default_rng(3).normal(size=80)[user]  # what one user's rows have in common
    random, drawn = np.random.default_rng(1), []
    of = [np.flatnonzero(user == each) for each in range(80)]
    for _ in range(1000):
        some = np.concatenate([of[each] for each in random.integers(0, 80, 80)])
        drawn.append(auc(label[some], first[some]) - auc(label[some], second[some]))
    found = over_rows(label, first, second, user)
    assert found.standard_error == pytest.approx(np.std(drawn), rel=0.12)
    assert found.standard_error > 1.5 * over_rows(label, first, second).standard_error


def test_several_trainings_are_compared_by_their_mean_auc():
    label, first, second, user = rows()
    other = first + np.random.default_rng(2).normal(size=len(label))
    found = over_rows(label, np.stack([first, other]), np.stack([second, second]), user)
    assert found.value == pytest.approx((auc(label, first) + auc(label, other)) / 2 - auc(label, second), abs=1e-12)
    assert over_rows(label, np.stack([first, first]), second, user).p == pytest.approx(
        over_rows(label, first, second, user).p
    )


def test_the_order_of_rows_and_the_names_of_users_do_not_matter():
    label, first, second, user = rows()
    order = np.random.default_rng(5).permutation(len(label))
    names = np.array([f"u{one}" for one in user], dtype=object)
    shuffled = over_rows(label[order], first[order], second[order], names[order])
    assert shuffled.p == pytest.approx(over_rows(label, first, second, user).p, rel=1e-9)


def test_one_class_alone_has_no_test():
    assert math.isnan(over_rows(np.ones(4), np.arange(4), np.arange(4)).p)


def test_chance_differences_are_found_as_often_as_the_p_value_says():
    """Two scores of one quality on many drawn logs: p is below 0.2 for about a fifth of them."""
    found = []
    for seed in range(200):
        random = np.random.default_rng(seed)
        label = random.integers(0, 2, 200)
        first, second = (label + 2 * random.normal(size=200) for _ in range(2))
        found.append(over_rows(label, first, second, np.arange(200) // 4).p < 0.2)
    assert 0.12 < np.mean(found) < 0.28
