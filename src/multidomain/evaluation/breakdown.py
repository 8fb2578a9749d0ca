"""Every metric of many groups of the same rows at once: domains, segments of users or items, days."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from . import metrics as measures

Array = npt.NDArray[Any]
METRICS = ("auc", "gauc", "gauc_coverage", "pcoc", "logloss", "ece", "rows")
_BINS = 10  # of the calibration error


class Scored:
    """Labels and scores, sorted once.

    Args:
        label: (N,), each 0 or 1.
        score: (N,) probabilities.
        user: (N,) what GAUC groups by.

    Raises:
        ValueError: as :mod:`.metrics`.
    """

    def __init__(self, label: npt.ArrayLike, score: npt.ArrayLike, user: npt.ArrayLike) -> None:
        self.label, self.score = measures.probabilities(label, score)
        self._user, self._users = measures.codes(user)
        if len(self._user) != len(self.label):
            raise ValueError(f"user has {len(self._user)} rows where label has {len(self.label)}")
        self._order, self._loss = np.argsort(self.score), measures.losses(self.label, self.score)

    def by(self, group: npt.NDArray[np.int64], groups: int) -> dict[str, Array]:
        """``METRICS`` of each group, nan where undefined: name -> (groups,).

        Args:
            group: (N,), numbers below ``groups``.
            groups: how many there are.
        """
        label, score = self.label, self.score
        auc, rows = measures.auc_by_group(label, score, group, groups, order=self._order)
        clicks, promised = (np.bincount(group, weights=part, minlength=groups) for part in (label, score))
        loss = np.bincount(group, weights=self._loss, minlength=groups)
        gauc, coverage = self._gauc(group, groups, rows)
        return {
            "auc": auc,
            "gauc": gauc,
            "gauc_coverage": coverage,
            "pcoc": _divided(promised, clicks),
            "logloss": _divided(loss, rows),
            "ece": _divided(self._calibration_error(group, groups), rows),
            "rows": rows.astype(np.int64),
        }

    def _gauc(self, group: npt.NDArray[np.int64], groups: int, rows: Array) -> tuple[Array, Array]:
        pair, pairs = self._user, self._users
        of_group = np.zeros(pairs, dtype=np.int64)
        if groups > 1:
            pair, of_group = measures.pairs(group, groups, self._user, self._users)
            pairs = len(of_group)
        auc, weight = measures.auc_by_group(self.label, self.score, pair, pairs, order=self._order)
        counted = ~np.isnan(auc)
        weight = np.where(counted, weight, 0.0)
        total = np.bincount(of_group, weights=weight, minlength=groups)
        summed = np.bincount(of_group, weights=weight * np.where(counted, auc, 0.0), minlength=groups)
        return _divided(summed, total), _divided(total, rows)

    def _calibration_error(self, group: npt.NDArray[np.int64], groups: int) -> Array:
        """Σ |Σ score - Σ label| over the bins of probability, of each group."""
        number = np.minimum((self.score * _BINS).astype(np.int64), _BINS - 1)
        number += group * _BINS
        difference = np.bincount(number, weights=self.score - self.label, minlength=groups * _BINS)
        error: Array = np.abs(difference).reshape(groups, _BINS).sum(1)
        return error


def _divided(above: Array, below: Array) -> Array:
    """above / below, nan where there is nothing to divide by."""
    ratio: Array = np.divide(above, below, out=np.full(len(above), np.nan), where=below > 0)
    return ratio
