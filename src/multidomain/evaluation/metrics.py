"""Metrics of click prediction on NumPy arrays. A metric that is undefined for the rows given is nan."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd

Array = npt.NDArray[np.float64]
_EPS = 1e-15


def auc(label: npt.ArrayLike, score: npt.ArrayLike) -> float:
    """Area under the ROC curve: the chance that a click scores above a non-click, ties counting half.

    Args:
        label: (N,), each 0 or 1.
        score: (N,), probabilities or logits: only their order matters.

    Returns:
        A number in [0, 1]; nan where one of the classes is missing.

    Raises:
        ValueError: lengths that differ, NaN scores, labels other than 0 and 1 (as every metric here).
    """
    label, score = _checked(label, score)
    value, _ = _grouped_auc(label, score, np.zeros(len(label), dtype=np.int64), 1)
    return float(value[0])


def gauc(label: npt.ArrayLike, score: npt.ArrayLike, group: npt.ArrayLike) -> tuple[float, float]:
    """AUC of each group, averaged with the groups' impressions as weights (STAR Eq. 9, AdaptDHM Eq. 9).

    Groups with one class only have no AUC and are left out.

    Args:
        label: (N,), each 0 or 1.
        score: (N,).
        group: (N,), any values that can be told apart: a user, a session.

    Returns:
        The average (nan if no group has both classes), and the share of impressions in groups that count.
    """
    label, score = _checked(label, score)
    codes, groups = _codes(group)
    if len(codes) != len(label):
        raise ValueError(f"group has {len(codes)} rows where label has {len(label)}")
    if not len(label):
        return float("nan"), float("nan")
    value, rows = _grouped_auc(label, score, codes, groups)
    counted = ~np.isnan(value)
    coverage = float(rows[counted].sum() / len(label))
    if not counted.any():
        return float("nan"), coverage
    return float(np.average(value[counted], weights=rows[counted])), coverage


def pcoc(label: npt.ArrayLike, score: npt.ArrayLike) -> float:
    """Predicted over observed: mean probability / mean label (STAR §4.3.4). nan without a click."""
    label, probability = _probabilities(label, score)
    return float(probability.mean() / label.mean()) if label.any() else float("nan")


def logloss(label: npt.ArrayLike, score: npt.ArrayLike) -> float:
    """Mean binary cross-entropy of probabilities, kept 1e-15 away from 0 and 1. nan without rows."""
    label, probability = _probabilities(label, score)
    if not len(label):
        return float("nan")
    probability = probability.clip(_EPS, 1 - _EPS)
    return float(-np.mean(np.where(label == 1, np.log(probability), np.log1p(-probability))))


def ece(label: npt.ArrayLike, score: npt.ArrayLike, *, bins: int = 10) -> float:
    """Expected calibration error over ``bins`` equally wide bins of probability: Σ rows/N · |mean p - mean label|."""
    label, probability = _probabilities(label, score)
    if not len(label):
        return float("nan")
    number = np.minimum((probability * bins).astype(np.int64), bins - 1)
    difference = np.bincount(number, weights=probability - label, minlength=bins)
    return float(np.abs(difference).sum() / len(label))


def rela_impr(auc: float, auc_base: float) -> float:
    """RelaImpr: (AUC - 0.5) / (AUC_base - 0.5) - 1 (HierRec Eq. 11, ADS Eq. 14). nan where the base is at chance."""
    return (auc - 0.5) / (auc_base - 0.5) - 1 if auc_base != 0.5 else float("nan")


def _grouped_auc(label: Array, score: Array, group: npt.NDArray[np.int64], groups: int) -> tuple[Array, Array]:
    """AUC and number of rows of each group 0 … groups-1.

    The Mann-Whitney statistic: sort by group and score, give tied rows their mean rank, sum the ranks of the clicks.
    """
    order = np.argsort(score, kind="stable")
    order = order[np.argsort(group[order], kind="stable")]
    label, score, group = label[order], score[order], group[order]
    rows = np.bincount(group, minlength=groups)
    rank = _mean_ranks(score, group) - (np.cumsum(rows) - rows)[group]  # 1 … rows of the group
    clicks = np.bincount(group, weights=label, minlength=groups)
    total = np.bincount(group, weights=rank * label, minlength=groups)
    pairs = clicks * (rows - clicks)
    wins = total - clicks * (clicks + 1) / 2
    value = np.divide(wins, pairs, out=np.full(groups, np.nan), where=pairs > 0)
    return value, rows.astype(np.float64)


def _mean_ranks(score: Array, group: npt.NDArray[np.int64]) -> Array:
    """Rank, from 1, of sorted rows; rows that tie in group and score share the mean of their ranks."""
    if not len(score):
        return np.zeros(0)
    new = np.concatenate([[True], (np.diff(group) != 0) | (score[1:] != score[:-1])])
    first = np.flatnonzero(new)
    size = np.diff(np.append(first, len(score)))
    return np.repeat(first + (size + 1) / 2, size)


def _codes(group: npt.ArrayLike) -> tuple[npt.NDArray[np.int64], int]:
    """Groups as numbers 0 … n-1, and n."""
    codes, names = pd.factorize(np.asarray(group), use_na_sentinel=False)
    return codes.astype(np.int64), len(names)


def _checked(label: npt.ArrayLike, score: npt.ArrayLike) -> tuple[Array, Array]:
    labels = np.asarray(label, dtype=np.float64)
    scores = np.asarray(score, dtype=np.float64)
    if labels.ndim != 1 or scores.ndim != 1:
        raise ValueError(f"label and score must be one-dimensional, got the shapes {labels.shape} and {scores.shape}")
    if len(labels) != len(scores):
        raise ValueError(f"score has {len(scores)} rows where label has {len(labels)}")
    wrong = (labels != 0) & (labels != 1)
    if wrong.any():
        raise ValueError(f"{wrong.sum()} of {len(labels)} labels are neither 0 nor 1, such as {labels[wrong][0]}")
    if np.isnan(scores).any():
        raise ValueError(f"{np.isnan(scores).sum()} of {len(scores)} scores are NaN")
    return labels, scores


def _probabilities(label: npt.ArrayLike, score: npt.ArrayLike) -> tuple[Array, Array]:
    labels, scores = _checked(label, score)
    wrong = (scores < 0) | (scores > 1)
    if wrong.any():
        raise ValueError(
            f"{wrong.sum()} of {len(scores)} scores are no probabilities, such as {scores[wrong][0]}: "
            "this metric needs values in [0, 1], not logits"
        )
    return labels, scores
