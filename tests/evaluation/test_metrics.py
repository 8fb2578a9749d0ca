from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from multidomain.evaluation.metrics import auc, ece, gauc, logloss, pcoc, rela_impr

ROWS = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 8), st.integers(0, 4)), min_size=1, max_size=60)


def _arrays(rows):
    label, score, group = np.array(rows).T
    return label, score / 8, group


@given(ROWS)
@settings(max_examples=30, deadline=None)
def test_auc_is_that_of_scikit_learn_with_ties(rows):
    label, score, _ = _arrays(rows)
    if label.min() == label.max():
        assert math.isnan(auc(label, score))
    else:
        assert auc(label, score) == pytest.approx(sk.roc_auc_score(label, score), abs=1e-12)


@given(ROWS)
@settings(max_examples=30, deadline=None)
def test_gauc_is_the_weighted_mean_over_groups(rows):
    label, score, group = _arrays(rows)
    total = weight = 0.0
    for g in np.unique(group):
        mine = group == g
        if label[mine].min() != label[mine].max():
            total += sk.roc_auc_score(label[mine], score[mine]) * mine.sum()
            weight += mine.sum()
    value, coverage = gauc(label, score, group)
    assert coverage == pytest.approx(weight / len(label))
    assert (math.isnan(value) and not weight) or value == pytest.approx(total / weight, abs=1e-12)


@given(ROWS)
@settings(max_examples=30, deadline=None)
def test_logloss_is_that_of_scikit_learn(rows):
    label, score, _ = _arrays(rows)
    expected = sk.log_loss(label, score.clip(1e-15, 1 - 1e-15), labels=[0, 1])
    assert logloss(label, score) == pytest.approx(expected, rel=1e-9)


@given(ROWS)
@settings(max_examples=30, deadline=None)
def test_ece_is_the_gap_of_each_bin_weighted_by_its_rows(rows):
    label, score, _ = _arrays(rows)
    expected = 0.0
    for low in range(4):
        mine = (score >= low / 4) & ((score < (low + 1) / 4) | (low == 3))
        if mine.any():
            expected += mine.mean() * abs(score[mine].mean() - label[mine].mean())
    assert ece(label, score, bins=4) == pytest.approx(expected, abs=1e-12)


def test_by_hand():
    label, score = [1, 0, 1, 0], [0.9, 0.1, 0.4, 0.4]
    assert auc(label, score) == (1 + 1 + 1 + 0.5) / 4
    assert gauc(label, score, ["a", "a", "b", "b"]) == ((1 + 0.5) / 2, 1.0)
    assert gauc(label, score, ["a", "b", "c", "c"]) == (0.5, 0.5)
    assert pcoc(label, score) == pytest.approx(0.45 / 0.5)
    assert ece(label, score, bins=2) == pytest.approx((abs(0.9 - 1) * 1 + abs(0.3 - 1 / 3) * 3) / 4)
    assert logloss([1, 0], [0.5, 0.5]) == pytest.approx(math.log(2))
    assert rela_impr(0.8, 0.7) == pytest.approx(0.5)


def test_groups_may_be_text_with_nulls_or_numbers():
    label, score = [1, 0, 1, 0], [0.9, 0.1, 0.4, 0.5]
    expected = gauc(label, score, [0, 0, 1, 1])
    assert gauc(label, score, np.array(["u1", "u1", None, None], dtype=object)) == expected
    assert gauc(label, score, np.array([10**12, 10**12, -5, -5])) == expected


def test_what_is_undefined_is_nan():
    assert math.isnan(auc([1, 1], [0.1, 0.2]))
    assert math.isnan(gauc([1, 1], [0.1, 0.2], [0, 0])[0])
    assert gauc([1, 1], [0.1, 0.2], [0, 0])[1] == 0
    assert math.isnan(pcoc([0, 0], [0.1, 0.2]))
    assert math.isnan(rela_impr(0.7, 0.5))
    for metric in (auc, pcoc, logloss, ece):
        assert math.isnan(metric([], []))
    assert all(math.isnan(value) for value in gauc([], [], []))


@pytest.mark.parametrize("metric", [auc, pcoc, logloss, ece])
def test_impossible_input_is_an_error(metric):
    with pytest.raises(ValueError, match="score has 1 rows where label has 2"):
        metric([0, 1], [0.5])
    with pytest.raises(ValueError, match="1 of 2 scores are NaN"):
        metric([0, 1], [0.5, float("nan")])
    with pytest.raises(ValueError, match="1 of 2 labels are neither 0 nor 1, such as 2"):
        metric([0, 2], [0.5, 0.5])
    with pytest.raises(ValueError, match="one-dimensional"):
        metric([[0, 1]], [[0.5, 0.5]])


def test_logits_are_no_probabilities():
    assert auc([0, 1], [-3.0, 4.0]) == 1
    with pytest.raises(ValueError, match="not logits"):
        logloss([0, 1], [-3.0, 4.0])


def test_scores_in_single_precision_keep_their_order():
    score = np.nextafter(np.float32(0.5), np.float32([1, 0]))
    assert auc([1, 0], score) == 1
