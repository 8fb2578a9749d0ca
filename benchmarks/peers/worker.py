"""One side of one setting, in a process of its own: orders come as lines of JSON, answers go as such.

    python -m benchmarks.peers.worker '{"side": "ours", "setting": {…}, "folder": "…"}'

What a library prints goes to standard error.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

from . import memory
from .clock import Answer, Clock, Stop
from .settings import Setting

SIDES = ("ours", "torch_rechub", "fuxictr", "deepctr_torch")
APART = "ours_bf16"  # is measured when asked for, and no peer


class Training(Protocol):
    """A model and what it is trained with, ready to begin; every side has one, made by its ``build``."""

    def fit(self, tick: Callable[[], None]) -> None:
        """Trains with the library's own trainer and calls `tick` at the end of each step, until it raises Stop."""

    def scores(self) -> Any:
        """The test rows' scores in their order, as an array (n,), each by its own domain's tower."""


class Side(Protocol):
    """What a module such as ``ours`` has.

    Attributes:
        PACKAGE: its distribution; None is this project.
        LACKS: model -> why it is not measured.
    """

    PACKAGE: str | None
    LACKS: dict[str, str]

    def load(self) -> None:
        """Imports what training needs, and nothing else."""

    def build(self, setting: Setting, folder: Path, scratch: Path) -> Training:
        """The training of a setting, whose log lies in `folder`."""


def side(name: str) -> Side:
    """The side of that name; heavy imports are inside its functions."""
    return importlib.import_module(f"{__package__}.{name}")  # type: ignore[return-value]


def main() -> None:
    """Build, train as told, answer."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    orders = os.fdopen(os.dup(0), "r")
    os.dup2(2, 1)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)

    def answer(values: Answer) -> None:
        answers.write(json.dumps(values) + "\n")

    try:
        with tempfile.TemporaryDirectory() as scratch:
            work(json.loads(sys.argv[1]), orders, answer, Path(scratch))
    except Exception as error:
        traceback.print_exc()
        answer({"reason": f"{type(error).__name__}: {str(error).strip().splitlines()[-1] if str(error) else ''}"})


def work(given: dict[str, Any], orders: Any, answer: Callable[[Answer], None], scratch: Path) -> None:
    """One training under the orders that come."""
    this, setting, folder = side(given["side"]), Setting(**given["setting"]), Path(given["folder"])
    this.load()
    answer({"baseline": memory.peak()})
    training = this.build(setting, folder, scratch)
    clock = Clock(
        orders=lambda: json.loads(orders.readline() or '{"do": "stop"}'),
        answer=answer,
        area=lambda: area(training, folder),
        batch_size=setting.batch_size,
        rows=setting.rows,
        profiler=profiler,
    )
    with contextlib.suppress(Stop):
        training.fit(clock)
        raise RuntimeError("the trainer ended by itself")


def area(training: Training, folder: Path) -> float:
    """The test AUC."""
    import numpy as np

    from multidomain.evaluation.metrics import auc

    return float(auc(np.load(folder / "test" / "label.npy"), np.asarray(training.scores(), np.float64)))


@contextlib.contextmanager
def profiler() -> Iterator[Callable[[], str]]:
    """torch's, of the processor: the operators that took most time themselves."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU]) as found:
        yield lambda: found.key_averages().table(sort_by="self_cpu_time_total", row_limit=25, max_name_column_width=50)


if __name__ == "__main__":
    main()
