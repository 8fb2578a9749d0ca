"""Metrics of many groups at once, against each group by itself."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as reference

from multidomain.evaluation import metrics
from multidomain.evaluation.breakdown import METRICS, Scored

rows = st.lists(
    st.tuples(
        st.integers(0, 1), st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.75, 1.0]), st.integers(0, 3), st.integers(0, 4)
    ),
    min_size=1,
    max_size=60,
)


def alone(label: np.ndarray, score: np.ndarray, user: np.ndarray) -> dict[str, float]:
    """Each metric of one group, one function after the other."""
    if not len(label):
        return dict.fromkeys(METRICS, np.nan) | {"rows": 0}
    gauc, coverage = metrics.gauc(label, score, user)
    return {
        "auc": metrics.auc(label, score),
        "gauc": gauc,
        "gauc_coverage": coverage,
        "pcoc": metrics.pcoc(label, score),
        "logloss": metrics.logloss(label, score),
        "ece": metrics.ece(label, score),
        "rows": len(label),
    }


@settings(deadline=None)
@given(rows=rows)
def test_each_group_has_the_metrics_of_its_rows_alone(rows: list[tuple[int, float, int, int]]) -> None:
    label, score, user, group = (np.array(column) for column in zip(*rows, strict=True))
    found = Scored(label, score, user).by(group, 6)  # the last has no rows
    for number in range(6):
        at = group == number
        for name, expected in alone(label[at], score[at], user[at]).items():
            assert found[name][number] == pytest.approx(expected, nan_ok=True, abs=1e-12), (name, number)


def test_auc_of_groups_that_need_more_than_16_bits_is_that_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    groups, group = 70_000, rng.integers(0, 70_000, 400_000)
    label, score = rng.integers(0, 2, len(group)).astype(float), rng.integers(0, 9, len(group)) / 8
    found = Scored(label, score, group).by(group, groups)
    for number in (0, 1, 65_535, 65_536, 69_999):
        at = group == number
        assert len(set(label[at])) == 2
        assert found["auc"][number] == pytest.approx(reference.roc_auc_score(label[at], score[at]), abs=1e-12)


def test_users_of_another_number_of_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="user has 2 rows where label has 3"):
        Scored([0, 1, 0], [0.1, 0.2, 0.3], [1, 2])
