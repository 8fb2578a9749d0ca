"""Is one model better than another? Two paired tests of AUC, one over training runs and one over test rows.

They answer different questions. Over seeds: would the difference be there if both models were trained again? Over rows:
would these trained models differ on other impressions of other users?
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Difference:
    """A difference between two models and how sure it is.

    Attributes:
        value: the first minus the second.
        standard_error: of that value.
        p: two-sided, that a difference as large came about by chance.
    """

    value: float
    standard_error: float
    p: float


def over_seeds(first: Sequence[float], second: Sequence[float]) -> Difference | None:
    """Paired t-test: the same seeds train both models.

    Args:
        first, second: a metric per seed, in the same order of seeds.

    Returns:
        the mean difference; None with fewer than two seeds, or where a value is undefined.
    """
    from scipy.special import stdtr

    if len(first) != len(second):
        raise ValueError(f"a paired test takes as many values of one as of the other, got {len(first)}, {len(second)}")
    difference = np.asarray(first, dtype=np.float64) - np.asarray(second, dtype=np.float64)
    if len(difference) < 2 or np.isnan(difference).any():
        return None
    mean, error = float(difference.mean()), float(difference.std(ddof=1) / math.sqrt(len(difference)))
    if error == 0:
        return Difference(mean, 0.0, 1.0 if mean == 0 else 0.0)
    return Difference(mean, error, float(2 * stdtr(len(difference) - 1, -abs(mean / error))))


def over_rows(
    label: npt.ArrayLike, first: npt.ArrayLike, second: npt.ArrayLike, user: npt.ArrayLike | None = None
) -> Difference:
    """DeLong's test of two AUCs on the same rows, for rows that come in clusters (one user's rows resemble each other).

    E. DeLong, D. DeLong and D. Clarke-Pearson, *Comparing the Areas under Two or More Correlated ROC Curves: A
    Nonparametric Approach*, Biometrics 44 (1988); N. Obuchowski, *Nonparametric Analysis of Clustered ROC Curve Data*,
    Biometrics 53 (1997), which is DeLong's test where every row is a cluster of its own.

    Args:
        label: (N,) zeros and ones.
        first, second: (N,) scores, or (S, N) those of S trainings: then their mean AUCs are compared.
        user: (N,) the cluster of each row; None: every row is one.

    Returns:
        the difference of (mean) AUC; ``p`` is that of a standard normal statistic, nan where a class is missing.
    """
    labels = np.asarray(label, dtype=np.float64)
    positive = labels == 1
    M, N = int(positive.sum()), int((~positive).sum())
    if not M or not N:
        return Difference(math.nan, math.nan, math.nan)
    (v10, v01), (w10, w01) = _components(positive, first), _components(positive, second)
    d10, d01 = v10 - w10, v01 - w01
    value = float(d10.mean())  # the mean of the components of either class is the AUC
    cluster = np.arange(len(labels)) if user is None else pd.factorize(np.asarray(user), use_na_sentinel=False)[0]
    rows = int(cluster.max()) + 1
    m, n = (np.bincount(cluster[kept], minlength=rows) for kept in (positive, ~positive))  # rows of each class
    x = np.bincount(cluster[positive], weights=d10, minlength=rows) - m * value
    y = np.bincount(cluster[~positive], weights=d01, minlength=rows) - n * value
    s10 = _corrected(int((m > 0).sum())) * (x @ x) / M
    s01 = _corrected(int((n > 0).sum())) * (y @ y) / N
    s11 = _corrected(rows) * (x @ y)
    variance = float(s10 / M + s01 / N + 2 * s11 / (M * N))
    if not variance > 0:
        return Difference(value, 0.0, 1.0 if value == 0 else math.nan)
    error = math.sqrt(variance)
    return Difference(value, error, math.erfc(abs(value) / error / math.sqrt(2)))


def _components(positive: npt.NDArray[np.bool_], scores: npt.ArrayLike) -> tuple[Array, Array]:
    """Structural components, the mean over trainings: for each positive the share of negatives below it, for each
    negative the share of positives above it, ties counting half."""
    runs = np.atleast_2d(np.asarray(scores, dtype=np.float64))
    M, N = positive.sum(), (~positive).sum()
    v10, v01 = np.zeros(M), np.zeros(N)
    for score in runs:
        rank = _ranks(score)
        v10 += (rank[positive] - _ranks(score[positive])) / N
        v01 += 1 - (rank[~positive] - _ranks(score[~positive])) / M
    return v10 / len(runs), v01 / len(runs)


def _ranks(values: Array) -> Array:
    """Ranks from 1, tied values sharing the mean of theirs."""
    ranks: Array = pd.Series(values).rank().to_numpy(dtype=np.float64)
    return ranks


def _corrected(clusters: int) -> float:
    """K / (K - 1), for a variance estimated from K clusters."""
    return clusters / (clusters - 1) if clusters > 1 else math.nan
