"""From a model's logit to a probability that keeps its promise, domain by domain. It travels with a packaged model."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

KINDS = ("platt", "isotonic", "shrunk")
FILE = "calibration.json"
Array = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """A curve for each of M domains and, as the last, one for the unknown domain, fitted on all rows.

    A curve ``(x, y)`` leads from logits to logits: with ``lines`` it is ``y = slope · x + offset``, given as
    ``(offset, slope)``; otherwise it goes straight from point to point and stays level beyond its ends.

    Attributes:
        kind: one of ``KINDS``.
        lines: whether the curves are lines.
        curves: M + 1 of them: (2,), or (2, points) with rising x.
    """

    kind: str
    lines: bool
    curves: Sequence[Array]

    def probabilities(self, logit: npt.ArrayLike, domain: npt.NDArray[np.int64]) -> Array:
        """Logits (N,) and domain numbers 0 … M (N,) -> probabilities (N,)."""
        x = np.asarray(logit, dtype=np.float64)
        if self.lines:
            offset, slope = np.stack(list(self.curves)).T
            return logistic(slope[domain] * x + offset[domain])
        y = np.empty(len(x))
        for number in np.unique(domain):
            at = domain == number
            y[at] = np.interp(x[at], *self.curves[number])
        return logistic(y)

    def write(self, folder: Path) -> None:
        """``calibration.json`` in a folder."""
        (folder / FILE).write_text(json.dumps(self.to_dict(), indent=1), encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> Calibration | None:
        """What :meth:`write` wrote; None where there is none."""
        path = folder / FILE
        return cls.from_dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else None

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {"kind": self.kind, "lines": self.lines, "curves": [curve.tolist() for curve in self.curves]}

    @classmethod
    def from_dict(cls, about: Mapping[str, Any]) -> Calibration:
        """The opposite of :meth:`to_dict`."""
        curves = [np.asarray(curve, dtype=np.float64) for curve in about["curves"]]
        return cls(kind=about["kind"], lines=about["lines"], curves=curves)


def logistic(logit: Array) -> Array:
    """The logistic function, without overflow."""
    small = np.exp(-np.abs(logit))
    value: Array = np.where(logit >= 0, 1.0, small) / (1.0 + small)
    return value
