"""Training rows per second with one worker and with several, on the cores of this machine.

    python -m benchmarks.workers                  # drawn rows of MovieLens-1M's shape, STAR and DNN as configured
    python -m benchmarks.workers --workers 4

"1 worker" computes on all cores with threads; "1 worker, 1 thread" on one; of several workers each has its share of the
cores. Every figure is an epoch's, start and validation left out; all take turns.
"""

from __future__ import annotations

import os
import statistics
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from unittest import mock

import torch

from multidomain.models import build
from multidomain.tensors import EncodedSplit
from multidomain.training.config import TrainingConfig
from multidomain.training.device import use_available_cores
from multidomain.training.loop import fit

from . import measure
from .drawn import GENRES, MOVIELENS, Draw
from .measure import Figures
from .training_step import configured

ROWS, QUICK_ROWS = 200_000, 20_000


def main() -> None:
    """Measure, tell."""
    parser = measure.parser("workers", __doc__)
    parser.add_argument("--models", nargs="+", default=["dnn", "star"])
    parser.add_argument("--workers", type=int, default=2)
    given = parser.parse_args()
    setting = replace(measure.setting(given), clock="wall")  # of an epoch, over all processes
    content: Figures = {"head": measure.head(setting), "models": {}}
    with tempfile.TemporaryDirectory() as temporary:
        rows = QUICK_ROWS if setting.quick else ROWS
        folder = Path(temporary)
        Draw(schema=MOVIELENS, shares=GENRES).write(folder / "rows", rows={"train": rows, "validation": rows // 20})
        for name in given.models:
            calls = {
                "1 worker, 1 thread": epoch(name, folder, workers=1, threads="1"),
                "1 worker": epoch(name, folder, workers=1),
                f"{given.workers} workers": epoch(name, folder, workers=given.workers),
            }
            content["models"][name] = in_turn(calls, setting.rounds)
    measure.save(setting, "workers", content, markdown(content))


def epoch(name: str, folder: Path, *, workers: int, threads: str | None = None) -> Callable[[], float]:
    """What trains one epoch and gives its rows per second."""
    splits = EncodedSplit(folder / "rows", "train"), EncodedSplit(folder / "rows", "validation")
    model, training = configured(measure.ROOT, name)
    config = TrainingConfig.from_dict({**training, "epochs": 1, "workers": workers})

    def call() -> float:
        torch.manual_seed(1)
        made = build(name, splits[0].inputs, **model)
        with mock.patch.dict(os.environ, {"OMP_NUM_THREADS": threads} if threads else {}):
            torch.set_num_threads(int(threads)) if threads else use_available_cores()
            kept = folder / "checkpoints"
            result = fit(made, *splits, config, seed=1, checkpoints=kept, device="cpu", show_progress=False)
        return result.history[0]["rows_per_second"]

    return call


def in_turn(calls: dict[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """The figures of each call, one of every round; a call of each before the first does not count."""
    for call in calls.values():
        call()
    found: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(rounds):
        for name in list(calls) if number % 2 == 0 else list(reversed(calls)):
            found[name].append(calls[name]())
    return found


def markdown(content: Figures) -> list[str]:
    """All figures."""
    lines = ["# Training with several workers", "", *measure.head_lines(content["head"])]
    rows = []
    for model, found in content["models"].items():
        for name, figures in found.items():
            against = measure.spread(figures, found["1 worker"])
            rows.append([model, name, f"{statistics.median(figures):,.0f}", against])
    return [*lines, "", *measure.table(["model", "", "rows/s", "over 1 worker"], rows)]


if __name__ == "__main__":
    main()
