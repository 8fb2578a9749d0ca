"""How far a metric of one test split is from what it would be on other users' impressions, and two models' difference.

Impressions of one user resemble each other, so users, not impressions, are what was drawn by chance. AUC has the
variance of DeLong's test with rows in clusters (:mod:`.significance`). GAUC, PCOC and log loss are ratios of two sums
over users; their variance is the linearised one of a ratio of means over clusters (W. Cochran, *Sampling Techniques*,
1977, section 6.3): ``K/(K-1) Σ (a_k - R b_k)² / (Σ b_k)²``. Intervals are ``± 1.96`` standard errors.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from . import metrics
from .significance import over_rows

Array = npt.NDArray[Any]
WIDTH = 1.96  # standard errors on either side: 95 %


@dataclass(frozen=True)
class Estimate:
    """A figure and how sure it is.

    Attributes:
        value: the figure; nan where it is undefined.
        standard_error: of it; nan where it cannot be told, as with the rows of one user alone.
    """

    value: float
    standard_error: float

    @property
    def low(self) -> float:
        """Lower end of the 95 % interval."""
        return self.value - WIDTH * self.standard_error

    @property
    def high(self) -> float:
        """Upper end of the 95 % interval."""
        return self.value + WIDTH * self.standard_error


def of_model(label: Array, score: Array, group: Array, user: Array) -> dict[str, Estimate]:
    """``auc, gauc, pcoc, logloss`` of one model.

    Args:
        label: (N,) zeros and ones.
        score: (N,) probabilities.
        group: (N,) what GAUC groups by: users, or something that belongs to one user.
        user: (N,) who was shown the impression.
    """
    label, score = metrics.probabilities(label, score)
    user, users = metrics.codes(user)
    chance = over_rows(label, score, np.zeros(len(label)), user) if _both(label) else None  # AUC 0.5 on every row
    weighted, weight = _gauc_parts(label, score, group, user, users)
    return {
        "auc": Estimate(math.nan, math.nan) if chance is None else Estimate(chance.value + 0.5, chance.standard_error),
        "gauc": ratio(weighted, weight),
        "pcoc": ratio(_sums(score, user, users), _sums(label, user, users)),
        "logloss": ratio(_sums(metrics.losses(label, score), user, users), _sums(np.ones(len(label)), user, users)),
    }


def of_difference(label: Array, first: Array, second: Array, group: Array, user: Array) -> dict[str, Estimate]:
    """``auc, gauc, logloss`` of the first model minus those of the second on the same rows; arguments as above."""
    label, first = metrics.probabilities(label, first)
    label, second = metrics.probabilities(label, second)
    user, users = metrics.codes(user)
    paired = over_rows(label, first, second, user)
    (one, weight), (other, _) = (_gauc_parts(label, score, group, user, users) for score in (first, second))
    loss = metrics.losses(label, first) - metrics.losses(label, second)
    return {
        "auc": Estimate(paired.value, paired.standard_error),
        "gauc": ratio(one - other, weight),
        "logloss": ratio(_sums(loss, user, users), _sums(np.ones(len(label)), user, users)),
    }


def ratio(above: Array, below: Array) -> Estimate:
    """Σ above / Σ below of sums over clusters (K,); clusters without rows may be among them."""
    total = float(below.sum())
    if not total > 0:
        return Estimate(math.nan, math.nan)
    value = float(above.sum()) / total
    clusters = int(np.count_nonzero((above != 0) | (below != 0)))
    if clusters < 2:
        return Estimate(value, math.nan)
    residual = above - value * below
    return Estimate(value, math.sqrt(clusters / (clusters - 1) * float(residual @ residual)) / total)


def _both(label: Array) -> bool:
    return bool(len(label)) and 0 < float(label.sum()) < len(label)


def _gauc_parts(label: Array, score: Array, group: Array, user: Array, users: int) -> tuple[Array, Array]:
    """Sums over each user's groups of rows · AUC and of rows; groups of one class do not count."""
    code, groups = metrics.codes(group)
    auc, rows = metrics.auc_by_group(label, score, code, groups)
    owner = np.zeros(groups, dtype=np.int64)
    owner[code] = user
    counted = ~np.isnan(auc)
    weight = np.where(counted, rows, 0.0)
    return _sums(weight * np.where(counted, auc, 0.0), owner, users), _sums(weight, owner, users)


def _sums(values: Array, user: Array, users: int) -> Array:
    total: Array = np.bincount(user, weights=values, minlength=users)
    return total
