"""One training step of every model: milliseconds, rows/s, parameters; and where the time goes.

    python -m benchmarks.steps                                   # all models, as configured, on drawn rows
    python -m benchmarks.steps --profile --label after           # a profile of each of the five architectures instead
    python -m benchmarks.steps --against ../before               # beside another checkout, in turn
    python -m benchmarks.steps --compare old/steps.json          # beside figures that were kept
    python -m benchmarks.steps --precision bfloat16              # beside the same in float32, in turn

Rows have the shape of MovieLens-1M with domain=genre (18 domains); --encoded FOLDER takes those of an encoded variant.
A step is forward, backward, guard and optimizers of the training loop; the next batch is there already.

Regressions between two commits: ``git worktree add ../before <commit>``, then ``--against ../before``. Both run in
processes of their own, each model's rounds in turn, so that whatever else the machine does meets both; the ratio is the
median over rounds. ``--compare`` is for a machine that does nothing else. The other checkout's ``src`` and ``conf`` are
used with these benchmarks.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from . import measure
from .drawn import GENRES, MOVIELENS, Draw
from .measure import Figures, Setting

FIVE = ("star", "adaptdhm", "hmdn", "hierrec", "ads")
BATCHES, WARM = 16, 3
SECONDS = 0.5  # of steps in one round: enough of them that one interruption does not decide
QUICK_ROWS = 256


def main() -> None:
    """Measure, compare, tell."""
    given = arguments()
    setting = measure.setting(given)
    if given.child:
        serve(given, setting.clock)
        return
    if given.profile:
        profiles(given, setting)
        return
    content: Figures = {"models": timed(given, setting)}
    content["head"] = measure.head(setting)
    if given.against:
        content["against"] = measure.revision(given.against)
    elif given.precision:
        content["against"] = "float32"
    name = "steps" if given.label is None else f"steps_{given.label}"
    old = json.loads(given.compare.read_text(encoding="utf-8")) if given.compare else None
    measure.save(setting, name, content, markdown(content, old))


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = measure.parser("steps", __doc__)
    parser.add_argument("--models", nargs="+", help="all by default")
    parser.add_argument("--batch", type=int, help="rows of a step (as configured)")
    parser.add_argument("--encoded", type=Path, help="an encoded variant, instead of drawn rows")
    parser.add_argument("--against", type=Path, help="another checkout")
    parser.add_argument("--precision", help="of products here (training.precision), beside float32")
    parser.add_argument("--compare", type=Path, help="the steps.json of an earlier measurement")
    parser.add_argument("--profile", action="store_true", help=f"of {', '.join(FIVE)}, or of --models")
    parser.add_argument("--label", help="part of the names of the files written")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def chosen(given: argparse.Namespace) -> list[str]:
    from multidomain.models import architectures

    return list(given.models or architectures())


def timed(given: argparse.Namespace, setting: Setting) -> dict[str, Figures]:
    """Per model its rounds, here and, if asked for, in the other checkout."""
    checkouts = {"here": measure.ROOT}
    if given.against or given.precision:
        checkouts["against"] = (given.against or measure.ROOT).resolve()
    found: dict[str, Figures] = {}
    with workers(checkouts) as ask:
        for model in chosen(given):
            found[model] = {name: ask(name, "make", model) for name in checkouts}
            runs: dict[str, list[float]] = {name: [] for name in checkouts}
            for number in range(setting.rounds):
                for name in list(checkouts) if number % 2 == 0 else list(reversed(checkouts)):
                    runs[name].append(ask(name, "run", None))
            for name, ms in runs.items():
                middle = statistics.median(ms)
                rate = found[model][name]["rows"] / middle * 1000
                found[model][name] |= {"ms": middle, "runs": ms, "rows_per_second": rate}
            print(f"{model:<16}" + "".join(f"{found[model][name]['ms']:10.2f} ms" for name in runs), file=sys.stderr)
    return found


# --- a process for each checkout ---------------------------------------------------------------------------------


@contextmanager
def workers(checkouts: dict[str, Path]) -> Iterator[Any]:
    """Processes that wait until they are asked: ``ask(name, what, model)``."""
    processes = {}
    try:
        for name, folder in checkouts.items():
            environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(folder / "src"), str(measure.ROOT)])}
            words = [sys.executable, "-m", "benchmarks.steps", *sys.argv[1:], "--child", str(folder)]
            words += ["--precision", "float32"] if name == "against" and "--precision" in sys.argv else []
            processes[name] = subprocess.Popen(
                words, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )

        def ask(name: str, what: str, model: str | None) -> Any:
            process = processes[name]
            with contextlib.suppress(BrokenPipeError):
                process.stdin.write(json.dumps([what, model]) + "\n")
                process.stdin.flush()
            answer = process.stdout.readline()
            if not answer:
                raise SystemExit(f"The process that measures {checkouts[name]} has ended: see above.")
            return json.loads(answer)

        yield ask
    finally:
        for process in processes.values():
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()
            process.wait()


def serve(given: argparse.Namespace, clock: str) -> None:
    """Answer what :func:`workers` asks, until nothing more comes."""
    import multidomain

    if not Path(multidomain.__file__).resolve().is_relative_to(given.child.resolve()):
        raise SystemExit(f"{multidomain.__file__} was imported instead of what is in {given.child}")
    state: dict[str, Any] = {}
    for line in sys.stdin:
        what, model = json.loads(line)
        print(json.dumps(make(given, state, model) if what == "make" else run(state, clock)), flush=True)


def make(given: argparse.Namespace, state: dict[str, Any], name: str) -> Figures:
    """A model with batches; how large it is."""
    from multidomain.evaluation.cost import parameters

    state.clear()
    step = state["step"] = prepared(given, name)[0]
    for _ in range(1 if given.quick else WARM):
        step()
    state["times"] = 1 if given.quick else max(1, round(SECONDS / measure.seconds(step, WARM)))
    size = parameters(step.model)
    return {"rows": step.rows, "embedding": size.embedding, "rest": size.rest}


def run(state: dict[str, Any], clock: str) -> float:
    """Milliseconds of a step: the median of one round."""
    return 1000 * statistics.median(measure.seconds(state["step"], 1, clock) for _ in range(state["times"]))


def prepared(given: argparse.Namespace, name: str) -> tuple[Any, list[Any]]:
    """The training step of a model as configured, and its batches."""
    import numpy as np

    from multidomain.tensors import EncodedSplit

    from .training_step import TrainingStep, configured

    model, training = configured(given.child or measure.ROOT, name)
    training |= {"precision": given.precision} if given.precision else {}
    rows = given.batch or (QUICK_ROWS if given.quick else training["batch_size"])
    if given.encoded:
        split = EncodedSplit(given.encoded, "train")
        random = np.random.default_rng(1)
        schema, batches = split.inputs, [split.batch(random.permutation(split.rows)[:rows]) for _ in range(BATCHES)]
    else:
        schema = MOVIELENS
        batches = Draw(schema=schema, shares=GENRES).batches(rows, BATCHES)
    return TrainingStep(name, schema, batches, model=model, training=training), batches


# --- telling -----------------------------------------------------------------------------------------------------


def profiles(given: argparse.Namespace, setting: Setting) -> None:
    """A text per architecture."""
    from . import profiled

    rows = 20_000 if given.quick else profiled.STEPS_KEPT
    with profiled.encoded(Draw(schema=MOVIELENS, shares=GENRES), given.encoded, rows) as folder:
        for name in given.models or FIVE:
            step, batches = prepared(given, name)
            profiled.parts(step, batches, WARM, setting.clock)
            measured = profiled.parts(step, batches, 3 if given.quick else 40, setting.clock)
            gathering = profiled.input_ms(folder, step.rows, 3 if given.quick else 50, setting.clock)
            found, operators = profiled.by_module(step, batches, 2 if given.quick else 8)
            title = [
                f"# {name}: where the time of a training step goes",
                "",
                *measure.head_lines(measure.head(setting), "medians of steps"),
            ]
            lines = title + profiled.text(found, measured, gathering, operators, step.rows)
            target = setting.results / f"profile_{name}_{given.label or 'now'}.txt"
            if setting.results == Path(os.devnull):
                print("\n".join(lines))
            else:
                setting.results.mkdir(parents=True, exist_ok=True)
                target.write_text("\n".join(lines) + "\n", encoding="utf-8")


def markdown(content: Figures, old: Figures | None = None) -> list[str]:
    """The table of all models, beside another checkout or older figures where there are any."""
    against = content.get("against")
    columns = ["model", "ms per step", "rows", "rows/s", "parameters: tables", "others"]
    columns += (
        [f"ms with {against}" if against == "float32" else f"ms at {against}", "ms here / there"] if against else []
    )
    columns += [f"ms at {old['head']['revision']}", "ms now / then"] if old else []
    rows = []
    for name, found in content["models"].items():
        here = found["here"]
        cells = [name, f"{here['ms']:.2f}", f"{here['rows']:,}", f"{here['rows_per_second']:,.0f}"]
        cells += [f"{here['embedding']:,}", f"{here['rest']:,}"]
        if against:
            there = found["against"]
            cells += [f"{there['ms']:.2f}", measure.spread(here["runs"], there["runs"])]
        if old:
            then = old["models"].get(name, {}).get("here")
            cells += [f"{then['ms']:.2f}", f"{here['ms'] / then['ms']:.2f}"] if then else ["", "new"]
        rows.append(cells)
    title = "# One training step of every model"
    return [title, "", *measure.head_lines(content["head"]), *measure.table(columns, rows)]


if __name__ == "__main__":
    main()
