"""Calibration curves: fitted on some rows, right on others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from multidomain.calibration import KINDS, Calibration, logistic
from multidomain.errors import ConfigurationError
from multidomain.evaluation import calibrate, metrics


def promised_too_much(
    rows: tuple[int, ...] = (4000, 4000, 60), seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Logits that are off by an offset and a slope of each domain's own, labels, domains."""
    rng = np.random.default_rng(seed)
    domain = np.repeat(np.arange(len(rows)), rows)
    truth = rng.normal(-1, 1.2, len(domain))
    offset, slope = np.array([0.8, -0.5, 0.1])[domain], np.array([1.6, 0.7, 1.0])[domain]
    return slope * truth + offset, (rng.random(len(domain)) < logistic(truth)).astype(float), domain


@pytest.mark.parametrize("kind", KINDS)
def test_each_domain_keeps_its_promise_on_the_rows_it_was_fitted_on_and_on_others(kind: str) -> None:
    logit, label, domain = promised_too_much()
    curves = calibrate.fit(kind, logit, label, domain, 3)
    new_logit, new_label, _ = promised_too_much(seed=1)
    for number in (0, 1):
        at = domain == number
        before = metrics.pcoc(new_label[at], logistic(new_logit[at]))
        assert metrics.pcoc(label[at], curves.probabilities(logit[at], domain[at])) == pytest.approx(1, abs=0.02)
        assert metrics.pcoc(new_label[at], curves.probabilities(new_logit[at], domain[at])) == pytest.approx(1, abs=0.1)
        assert abs(before - 1) > 0.15


def test_platts_line_is_the_logistic_regression_of_scikit_learn() -> None:
    logit, label, _ = promised_too_much()
    offset, slope = calibrate.line(logit, label)[0]
    reference = LogisticRegression(C=np.inf, tol=1e-10).fit(logit[:, None], label)
    assert offset == pytest.approx(reference.intercept_[0], abs=1e-5)
    assert slope == pytest.approx(reference.coef_[0, 0], abs=1e-5)


def test_isotonic_steps_are_those_of_scikit_learn() -> None:
    logit, label, _ = promised_too_much()
    x, y = calibrate.fit("isotonic", logit, label, np.zeros(len(logit), dtype=int), 1).curves[0]
    reference = IsotonicRegression(y_min=0.5 / len(label), y_max=1 - 0.5 / len(label)).fit(logit, label)
    order = np.argsort(logit)
    values = np.unique(np.round(reference.predict(logit[order]), 12))
    np.testing.assert_allclose(logistic(y), values, atol=1e-9)
    assert (np.diff(x) > 0).all()


def test_a_small_domain_is_drawn_towards_the_others_the_more_the_smaller_it_is() -> None:
    rng = np.random.default_rng(3)
    offsets, lines = rng.normal(0.3, 0.4, 20), {}
    for rows in (100, 3000):
        domain = np.repeat(np.arange(21), [2000] * 20 + [rows])
        truth = rng.normal(-1, 1, len(domain))
        logit = truth - np.append(offsets, 2.5)[domain]  # the last promises far too little
        label = (rng.random(len(domain)) < logistic(truth)).astype(float)
        lines[rows] = [calibrate.fit(kind, logit, label, domain, 21).curves[20][0] for kind in ("platt", "shrunk")]
    assert 0.3 < lines[100][1] < lines[100][0]
    small, large = (abs(platt - shrunk) for platt, shrunk in (lines[100], lines[3000]))
    assert large < small


def test_domains_that_do_not_differ_share_one_line_when_shrunk() -> None:
    rng = np.random.default_rng(0)
    domain = np.repeat(np.arange(30), 60)
    truth = rng.normal(-1, 1, len(domain))
    label = (rng.random(len(domain)) < logistic(truth)).astype(float)
    platt, shrunk = (
        np.stack(list(calibrate.fit(kind, truth, label, domain, 30).curves))[:-1] for kind in ("platt", "shrunk")
    )
    assert shrunk.std(0).max() < 0.35 * platt.std(0).max()


@pytest.mark.parametrize("kind", KINDS)
def test_a_domain_of_one_class_of_few_rows_or_of_none_has_a_curve(kind: str) -> None:
    logit, label, domain = promised_too_much()
    label[domain == 2] = 0
    curves = calibrate.fit(kind, logit, label, domain, 5)
    assert len(curves.curves) == 6
    found = curves.probabilities(np.linspace(-3, 3, 60), np.arange(60) % 6)
    assert ((found > 0) & (found < 1)).all()
    if kind != "shrunk":
        np.testing.assert_array_equal(curves.curves[2], curves.curves[5])


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 1000), kind=st.sampled_from(KINDS))
def test_within_a_domain_the_order_of_rows_stays(seed: int, kind: str) -> None:
    logit, label, domain = promised_too_much((300, 300, 60), seed)
    curves = calibrate.fit(kind, logit, label, domain, 3)
    x = np.linspace(logit.min() - 1, logit.max() + 1, 200)
    for number in range(4):
        rising = np.diff(curves.probabilities(x, np.full(200, number)))
        assert (rising >= 0).all()


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_written_calibrates_the_same(kind: str, tmp_path: Path) -> None:
    logit, label, domain = promised_too_much()
    curves = calibrate.fit(kind, logit, label, domain, 3)
    curves.write(tmp_path)
    read = Calibration.read(tmp_path)
    assert read is not None
    np.testing.assert_array_equal(read.probabilities(logit, domain), curves.probabilities(logit, domain))
    assert Calibration.read(tmp_path / "nowhere") is None


def test_a_kind_nobody_knows_is_an_error_that_names_those_there_are() -> None:
    with pytest.raises(ConfigurationError, match=r"'plat' is not known\. Allowed: platt, isotonic, shrunk, or null"):
        calibrate.require_kind("plat")
    with pytest.raises(ValueError, match="both classes"):
        calibrate.fit("platt", np.zeros(3), np.zeros(3), np.zeros(3, dtype=int), 1)


def test_scores_that_are_upside_down_are_not_turned_around() -> None:
    logit, label, domain = promised_too_much()
    for kind in ("platt", "shrunk"):
        curves = calibrate.fit(kind, -logit, label, domain, 3)
        assert all(curve[1] > 0 for curve in curves.curves)
        assert curves.curves[3][1] == pytest.approx(1)
        assert curves.probabilities(-logit, np.full(len(logit), 3)).mean() == pytest.approx(label.mean(), abs=1e-6)
