"""Fit calibration curves on rows that the weights were not learnt from.

- ``platt``: a line in logits for each domain, by maximum likelihood (J. Platt, *Probabilistic Outputs for Support
  Vector Machines*, 1999). On the rows it is fitted on, the mean probability is the share of clicks.
- ``isotonic``: the rising step function of least squares for each domain (B. Zadrozny and C. Elkan, *Transforming
  Classifier Scores into Accurate Multiclass Probability Estimates*, KDD 2002).
- ``shrunk``: Platt's line, each domain's drawn towards that of all rows, the more the less its rows can tell. How far
  domains differ in truth is estimated from all of them (R. DerSimonian and N. Laird, *Meta-Analysis in Clinical
  Trials*, 1986, for offset and slope by themselves): for domains of few rows.

† A domain whose rows are all of one class, or fewer than ``SMALLEST``, has the curve of all rows with ``platt`` and
``isotonic``; so has one whose own line would fall. If that of all rows would fall, its slope is 1. The unknown domain
has the curve of all rows.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ..calibration import KINDS, Calibration, logistic
from ..errors import ConfigurationError

SMALLEST = 50  # rows, below which a domain has no curve of its own
_STEPS, _CLOSE = 100, 1e-10
_WEAK = 1e-8  # precision of a prior that decides nothing but where the data cannot
_FIXED = 1e12  # of one that decides alone
Array = npt.NDArray[np.float64]
Line = tuple[Array, Array]  # (offset, slope), its information matrix (2, 2)


def require_kind(kind: str | None) -> None:
    """Raises a ConfigurationError unless the kind is known or None."""
    if kind is not None and kind not in KINDS:
        raise ConfigurationError(f"calibration: '{kind}' is not known. Allowed: {', '.join(KINDS)}, or null for none.")


def fit(
    kind: str, logit: npt.ArrayLike, label: npt.ArrayLike, domain: npt.NDArray[np.int64], domains: int
) -> Calibration:
    """Curves for ``domains`` domains and the unknown one.

    Args:
        kind: one of ``KINDS``.
        logit: (N,) of validation rows.
        label: (N,) zeros and ones, both of them.
        domain: (N,) numbers 0 … domains, the last being unknown.
        domains: M.

    Raises:
        ConfigurationError: a kind that is not known.
        ValueError: the labels are all the same.
    """
    require_kind(kind)
    x, y = np.asarray(logit, dtype=np.float64), np.asarray(label, dtype=np.float64)
    if not 0 < y.sum() < len(y):
        raise ValueError("calibration needs rows of both classes")
    rows = [np.flatnonzero(domain == number) for number in range(domains)]
    if kind == "isotonic":
        everything = _steps(x, y)
        curves = [_steps(x[at], y[at]) if _enough(y[at]) else everything for at in rows]
        return Calibration(kind=kind, lines=False, curves=[*curves, everything])
    pooled = line(x, y)
    if pooled[0][1] <= 0:
        pooled = line(x, y, precision=np.diag([_WEAK, _FIXED]))
    own = [line(x[at], y[at]) if _enough(y[at]) else None for at in rows]
    if kind == "platt":
        lines = [found[0] if found is not None and found[0][1] > 0 else pooled[0] for found in own]
    else:
        centre, variance = _between([found for found in own if found is not None and found[0][1] > 0], pooled)
        precision = np.diag(1 / np.maximum(variance, _WEAK))
        lines = [line(x[at], y[at], centre=centre, precision=precision)[0] if len(at) else centre for at in rows]
        lines = [found if found[1] > 0 else centre for found in lines]
    return Calibration(kind=kind, lines=True, curves=[*lines, pooled[0]])


def line(x: Array, y: Array, *, centre: Array | None = None, precision: Array | None = None) -> Line:
    """The most likely ``(offset, slope)``, by Newton's method, given a normal prior; the information of the rows."""
    start = np.array([0.0, 1.0]) if centre is None else centre
    prior = np.eye(2) * _WEAK if precision is None else precision
    theta, value = start, _objective(x, y, start, start, prior)
    information = np.zeros((2, 2))
    for _ in range(_STEPS):
        p = logistic(theta[0] + theta[1] * x)
        weight, gap = p * (1 - p), y - p
        slope = np.array([gap.sum(), gap @ x]) - prior @ (theta - start)
        information = np.array([[weight.sum(), weight @ x], [weight @ x, weight @ (x * x)]])
        step = np.linalg.solve(information + prior, slope)
        while (new := _objective(x, y, theta + step, start, prior)) < value and np.abs(step).max() > _CLOSE:
            step = step / 2  # too far
        theta, value = theta + step, max(new, value)
        if np.abs(step).max() < _CLOSE:
            break
    return theta, information


def _objective(x: Array, y: Array, theta: Array, centre: Array, prior: Array) -> float:
    z, away = theta[0] + theta[1] * x, theta - centre
    return float(y @ z - np.logaddexp(0, z).sum() - away @ prior @ away / 2)


def _between(lines: list[Line], pooled: Line) -> tuple[Array, Array]:
    """Mean (2,) of the domains' lines and their variance (2,) beyond what their rows' number explains."""
    if len(lines) < 2:
        return pooled[0], np.zeros(2)
    theta = np.stack([found for found, _ in lines])  # (k, 2)
    weight = 1 / np.stack([np.diag(np.linalg.pinv(information)) for _, information in lines]).clip(min=1e-12)
    mean = (weight * theta).sum(0) / weight.sum(0)
    spread = (weight * (theta - mean) ** 2).sum(0)
    room = weight.sum(0) - (weight**2).sum(0) / weight.sum(0)
    variance = np.maximum(0.0, (spread - (len(lines) - 1)) / np.maximum(room, 1e-12))
    weight = 1 / (1 / weight + variance)
    return (weight * theta).sum(0) / weight.sum(0), variance


def _steps(x: Array, y: Array) -> Array:
    """Points (2, n) of the isotonic regression: each step's mean logit, and its share of clicks as a logit."""
    from scipy.optimize import isotonic_regression

    distinct, place = np.unique(x, return_inverse=True)
    rows = np.bincount(place).astype(np.float64)
    fitted = isotonic_regression(np.bincount(place, weights=y) / rows, weights=rows)
    starts = fitted.blocks[:-1]
    total = np.add.reduceat(rows, starts)
    middle = np.add.reduceat(rows * distinct, starts) / total
    share = fitted.x[starts].clip(0.5 / len(y), 1 - 0.5 / len(y))  # no click among n rows is not never
    return np.stack([middle, np.log(share / (1 - share))])


def _enough(label: Array) -> bool:
    return len(label) >= SMALLEST and 0 < float(label.sum()) < len(label)
