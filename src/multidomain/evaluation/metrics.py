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
    value, _ = auc_by_group(label, score, np.zeros(len(label), dtype=np.int64), 1)
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
    code, groups = codes(group)
    if len(code) != len(label):
        raise ValueError(f"group has {len(code)} rows where label has {len(label)}")
    if not len(label):
        return float("nan"), float("nan")
    value, rows = auc_by_group(label, score, code, groups)
    counted = ~np.isnan(value)
    coverage = float(rows[counted].sum() / len(label))
    if not counted.any():
        return float("nan"), coverage
    return float(np.average(value[counted], weights=rows[counted])), coverage


def pcoc(label: npt.ArrayLike, score: npt.ArrayLike) -> float:
    """Predicted over observed: mean probability / mean label (STAR §4.3.4). nan without a click."""
    label, probability = probabilities(label, score)
    return float(probability.mean() / label.mean()) if label.any() else float("nan")


def logloss(label: npt.ArrayLike, score: npt.ArrayLike) -> float:
    """Mean binary cross-entropy of probabilities, kept 1e-15 away from 0 and 1. nan without rows."""
    label, probability = probabilities(label, score)
    if not len(label):
        return float("nan")
    return float(losses(label, probability).mean())


def losses(label: Array, probability: Array) -> Array:
    """Binary cross-entropy of each row (N,), probabilities kept 1e-15 away from 0 and 1."""
    probability = probability.clip(_EPS, 1 - _EPS)
    loss: Array = -np.log(np.where(label == 1, probability, 1 - probability))
    return loss


def ece(label: npt.ArrayLike, score: npt.ArrayLike, *, bins: int = 10) -> float:
    """Expected calibration error over ``bins`` equally wide bins of probability: Σ rows/N · |mean p - mean label|."""
    label, probability = probabilities(label, score)
    if not len(label):
        return float("nan")
    number = np.minimum((probability * bins).astype(np.int64), bins - 1)
    difference = np.bincount(number, weights=probability - label, minlength=bins)
    return float(np.abs(difference).sum() / len(label))


def rela_impr(auc: float, auc_base: float) -> float:
    """RelaImpr: (AUC - 0.5) / (AUC_base - 0.5) - 1 (HierRec Eq. 11, ADS Eq. 14). nan where the base is at chance."""
    return (auc - 0.5) / (auc_base - 0.5) - 1 if auc_base != 0.5 else float("nan")


def auc_by_group(
    label: Array,
    score: Array,
    group: npt.NDArray[np.int64],
    groups: int,
    *,
    order: npt.NDArray[np.int64] | None = None,
) -> tuple[Array, Array]:
    """AUC (nan where a class is missing) and number of rows of each group 0 … groups-1.

    The Mann-Whitney statistic: sort by group and score, give tied rows their mean rank, sum the ranks of the clicks.

    Args:
        label: (N,), each 0 or 1.
        score: (N,), none of them nan.
        group: (N,), numbers below ``groups``.
        groups: how many there are.
        order: (N,), ``score[order]`` is sorted, for who groups the same rows several times.
    """
    by_score = np.argsort(score) if order is None else order
    by_group = by_score if groups == 1 else by_score[_order(group[by_score], groups)]
    rows = np.bincount(group, minlength=groups)
    begins = np.cumsum(rows) - rows
    places = np.flatnonzero(label[by_group])  # of the clicks, in the order of groups and scores
    of = group[by_group[places]]
    rank = _mean_ranks(score[by_group], begins[rows > 0], places) - begins[of]  # 1 … rows of the group
    clicks = np.bincount(of, minlength=groups)
    total = np.bincount(of, weights=rank, minlength=groups)
    pairs = clicks.astype(np.float64) * (rows - clicks)
    wins = total - clicks * (clicks + 1) / 2
    value = np.divide(wins, pairs, out=np.full(groups, np.nan), where=pairs > 0)
    return value, rows.astype(np.float64)


def _mean_ranks(score: Array, begins: npt.NDArray[np.int64], places: npt.NDArray[np.int64]) -> Array:
    """Ranks, from 1, of some places of sorted rows; rows tie within groups, which begin at ``begins``."""
    new = np.ones(len(score), dtype=bool)
    new[1:] = score[1:] != score[:-1]
    new[begins] = True
    first = np.append(np.flatnonzero(new), len(score))
    if len(first) == len(score) + 1:
        return places.astype(np.float64) + 1
    run = np.searchsorted(first, places, side="right")
    rank: Array = (first[run - 1] + first[run] + 1) / 2
    return rank


def pairs(
    first: npt.NDArray[np.int64], firsts: int, second: npt.NDArray[np.int64], seconds: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The pair of each row as a number 0 … n-1, (N,), and the first of each pair (n,).

    Args:
        first, second: (N,), numbers below ``firsts`` and ``seconds``.
        firsts, seconds: how many there are.
    """
    pair = first * seconds + second
    order = _order(pair, firsts * seconds)
    pair = pair[order]
    new = np.ones(len(pair), dtype=bool)
    new[1:] = pair[1:] != pair[:-1]
    code = np.empty(len(pair), dtype=np.int64)
    code[order] = np.cumsum(new) - 1
    return code, pair[new] // seconds


def _order(group: npt.NDArray[np.int64], groups: int) -> npt.NDArray[np.int64]:
    """``np.argsort(group, kind="stable")`` by 16 bits at a time, which NumPy counts instead of comparing."""
    order = np.argsort(group.astype(np.uint16), kind="stable")  # the low bits
    for shift in range(16, max(groups - 1, 1).bit_length(), 16):
        order = order[np.argsort((group[order] >> shift).astype(np.uint16), kind="stable")]
    return order


def codes(group: npt.ArrayLike) -> tuple[npt.NDArray[np.int64], int]:
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


def probabilities(label: npt.ArrayLike, score: npt.ArrayLike) -> tuple[Array, Array]:
    """Both as float64 (N,), checked.

    Raises:
        ValueError: lengths that differ, labels other than 0 and 1, scores outside [0, 1].
    """
    labels, scores = _checked(label, score)
    wrong = (scores < 0) | (scores > 1)
    if wrong.any():
        raise ValueError(
            f"{wrong.sum()} of {len(scores)} scores are no probabilities, such as {scores[wrong][0]}: "
            "this metric needs values in [0, 1], not logits"
        )
    return labels, scores
