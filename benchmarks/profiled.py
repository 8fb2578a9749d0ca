"""Where the time of one training step goes: by part of the step, by module of the model, by operator."""

from __future__ import annotations

import itertools
import statistics
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn
from torch.profiler import ProfilerActivity, profile, record_function

from multidomain.batch import Batch
from multidomain.tensors import EncodedSplit

from .drawn import Draw
from .measure import seconds
from .training_step import PARTS, TrainingStep

OPERATORS = 30
MARK = "module: "
OTHERS = "(outside the model)"
DEPTH = 4  # inputs.embedding.table is three deep
STEPS_KEPT = 400_000  # rows of a drawn split: enough for batches that no cache holds


@dataclass
class ByModule:
    """Milliseconds of a step within each module, without the modules inside it, and what belongs to none."""

    forward: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    backward: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    operators: int = 0


def parts(step: TrainingStep, batches: list[Batch], rounds: int, clock: str) -> dict[str, list[float]]:
    """Milliseconds of each part of a step, unprofiled."""
    found: dict[str, list[float]] = defaultdict(list)
    for batch in itertools.islice(itertools.cycle(batches), rounds):
        for name, taken in step.timed(batch, clock).items():
            found[name].append(1000 * taken)
    return found


def by_module(step: TrainingStep, batches: list[Batch], steps: int) -> tuple[ByModule, str]:
    """What the profiler sees in so many steps, per step; and its table of operators."""
    with marked(step.model), profile(activities=[ProfilerActivity.CPU]) as seen:
        for batch in itertools.islice(itertools.cycle(batches), steps):
            step.timed(batch)
    found = ByModule()
    of_sequence: dict[int, str] = {}
    events = seen.events()
    for event in sorted(events, key=lambda one: one.time_range.start):
        if event.sequence_nr >= 0 and _backward(event) is None:
            of_sequence[event.sequence_nr] = _module(event) or OTHERS  # the last of a number is what autograd keeps
    for event in events:
        own = event.self_cpu_time_total / 1000 / steps
        found.operators += event.scope == 0 and not event.name.startswith(MARK)
        backward = _backward(event)
        if backward is not None:
            found.backward[of_sequence.get(backward.sequence_nr, _leftover(backward.name))] += own
        elif (module := _module(event)) is not None:
            found.forward[module] += own
    found.operators //= steps
    text = seen.key_averages().table(
        sort_by="self_cpu_time_total", row_limit=OPERATORS, max_name_column_width=60, header=None
    )
    return found, text


@contextmanager
def marked(model: nn.Module) -> Iterator[None]:
    """The name of every module, down to a depth, stands in the profile around what it does."""
    open_marks: list[Any] = []
    handles = []
    for name, module in model.named_modules():
        if name.count(".") >= DEPTH:
            continue

        def enter(module: nn.Module, given: Any, name: str = name) -> None:  # noqa: ARG001
            mark = record_function(MARK + (name or "(model)"))
            mark.__enter__()
            open_marks.append(mark)

        def leave(module: nn.Module, given: Any, output: Any) -> None:  # noqa: ARG001
            open_marks.pop().__exit__(None, None, None)

        handles += [module.register_forward_pre_hook(enter), module.register_forward_hook(leave)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _module(event: Any) -> str | None:
    """The innermost mark around an event."""
    while event is not None:
        if event.name.startswith(MARK):
            return str(event.name.removeprefix(MARK))
        event = event.cpu_parent
    return None


def _backward(event: Any) -> Any:
    """The node of the backward pass that an event is part of."""
    found = None
    while event is not None:
        if event.scope == 1 or event.name.startswith("autograd::engine::evaluate_function"):
            found = event
        event = event.cpu_parent
    return found


def _leftover(name: str) -> str:
    return "(gradients kept)" if "AccumulateGrad" in name else OTHERS


def input_ms(folder: Path, batch_size: int, rounds: int, clock: str) -> float:
    """Milliseconds to gather one batch of random rows of a split, in the thread that asks; the median."""
    split = EncodedSplit(folder, "train")
    random = np.random.default_rng(1)
    draws = [random.integers(0, split.rows, batch_size) for _ in range(rounds)]
    return 1000 * statistics.median(seconds(lambda rows=rows: split.batch(rows), 1, clock) for rows in draws)  # type: ignore[misc]


@contextmanager
def encoded(draw: Draw, given: Path | None, rows: int) -> Iterator[Path]:
    """The encoded folder that was given, or a drawn one for as long as it is needed."""
    if given is not None:
        yield given
        return
    with tempfile.TemporaryDirectory() as temporary:
        draw.write(Path(temporary), rows={"train": rows, "validation": rows // 10})
        yield Path(temporary)


def text(found: ByModule, measured: dict[str, list[float]], input_taken: float, operators: str, rows: int) -> list[str]:
    """The profile of one step."""
    middle = {name: statistics.median(measured[name]) for name in PARTS}
    total = statistics.median(sum(values) for values in zip(*measured.values(), strict=True))
    lines = [
        f"One step of {rows:,} rows: {total:.2f} ms, {rows / total * 1000:,.0f} rows/s, medians, not profiled:",
        "",
        *(f"  {name:<12}{ms:9.2f} ms {ms / total:7.1%}" for name, ms in middle.items()),
        f"  {'input':<12}{input_taken:9.2f} ms {input_taken / total:7.1%}  gathered by a thread beside the step",
        "",
        "Forward and backward by module, without the modules inside it, ms per step under the profiler, which "
        f"makes each of the {found.operators:,} operators of a step a few microseconds longer:",
        "",
        f"  {'module':<52}{'forward':>10}{'backward':>10}{'share':>8}",
    ]
    names = sorted({*found.forward, *found.backward}, key=lambda name: -found.forward[name] - found.backward[name])
    both = sum(found.forward.values()) + sum(found.backward.values())
    for name in names:
        forward, backward = found.forward[name], found.backward[name]
        lines.append(f"  {name:<52}{forward:10.2f}{backward:10.2f}{(forward + backward) / both:8.1%}")
    return [*lines, "", "Operators (whole step, all profiled steps):", "", *operators.splitlines()]
