"""A training step as it is, and with the model in torch.compile: milliseconds of both, in turn.

    python -m benchmarks.compiled                    # the five architectures and the DNN; --models for others

Rows and batches are those of :mod:`benchmarks.steps`. Shapes are static, as those of a batch are; a model is compiled
again for each new number of rows of a domain, up to a limit of PyTorch's, before anything is timed. A C++ compiler is
needed.
"""

from __future__ import annotations

import shutil
import statistics
import sys

import torch

from . import measure
from .drawn import GENRES, MOVIELENS, Draw
from .measure import Figures, Setting
from .steps import BATCHES, FIVE, QUICK_ROWS, SECONDS
from .training_step import TrainingStep, configured

HOWS = ("as it is", "compiled")


def main() -> None:
    """Measure, tell."""
    parser = measure.parser("compiled", __doc__)
    parser.add_argument("--models", nargs="+", default=["dnn", *FIVE])
    given = parser.parse_args()
    setting = measure.setting(given)
    if not shutil.which("c++") and not shutil.which("g++"):
        raise SystemExit("torch.compile needs a C++ compiler, and neither c++ nor g++ is on the PATH.")
    content: Figures = {"models": {name: timed(name, setting) for name in given.models}}
    content["head"] = measure.head(setting)
    measure.save(setting, "compiled", content, markdown(content))


def timed(name: str, setting: Setting) -> Figures:
    """Seconds per step of every round, both ways, and until it was compiled; or why it could not be."""
    model, training = configured(measure.ROOT, name)
    rows = QUICK_ROWS if setting.quick else training["batch_size"]
    batches = Draw(schema=MOVIELENS, shares=GENRES).batches(rows, 2 if setting.quick else BATCHES)
    steps = {how: TrainingStep(name, MOVIELENS, batches, model=model, training=training) for how in HOWS}
    torch.compiler.reset()
    steps["compiled"].model.compile(dynamic=False)
    try:
        seconds = measure.seconds(steps["compiled"], len(batches))  # every batch once: no shape is new after that
    except torch._dynamo.exc.TorchDynamoException as error:
        return {"why": type(error).__name__}
    at_least = 0.0 if setting.quick else SECONDS
    taken = measure.interleaved(steps, rounds=setting.rounds, clock=setting.clock, at_least=at_least)
    print(name, {how: f"{1000 * statistics.median(taken[how]):.1f} ms" for how in HOWS}, file=sys.stderr)
    return {**taken, "seconds": seconds * len(batches)}


def markdown(content: Figures) -> list[str]:
    """A line per model."""
    columns = ["model", *(f"ms, {how}" for how in HOWS), "compiled / as it is", "s until compiled"]
    rows = []
    for name, found in content["models"].items():
        if "why" in found:
            rows.append([name, "", "", f"cannot be compiled: {found['why']}", ""])
            continue
        ms = [f"{1000 * statistics.median(found[how]):.2f}" for how in HOWS]
        rows.append([name, *ms, measure.spread(found["compiled"], found["as it is"]), f"{found['seconds']:.0f}"])
    head = measure.head_lines(content["head"], "medians of rounds")
    return ["# A training step with torch.compile", "", *head, *measure.table(columns, rows)]


if __name__ == "__main__":
    main()
