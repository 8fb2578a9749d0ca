"""An epoch of training in float32 and in bf16: seconds, rows/s, and the AUC reached.

    python -m benchmarks.precision --encoded FOLDER --threads 2         # three seeds of the five architectures and DNN

Each seed trains a model in both precisions, one after the other; the next seed begins with the other one. Scores are
those of validation, which is computed in float32 whatever the precision of training. Seconds are those of the epoch's
training, validation left out.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
from pathlib import Path

import torch

from multidomain.models import build
from multidomain.tensors import EncodedSplit
from multidomain.training.config import TrainingConfig
from multidomain.training.loop import fit

from . import measure
from .drawn import GENRES, MOVIELENS, Draw
from .measure import Figures
from .steps import FIVE
from .training_step import configured

PRECISIONS = ("float32", "bfloat16")
SEEDS, QUICK_ROWS = 3, 2000


def main() -> None:
    """Train, tell."""
    parser = measure.parser("precision", __doc__)
    parser.add_argument("--encoded", type=Path, help="an encoded variant, instead of drawn rows")
    parser.add_argument("--models", nargs="+", default=["dnn", *FIVE])
    parser.add_argument("--seeds", type=int, help=f"({SEEDS}; quick: 1)")
    given = parser.parse_args()
    setting = measure.setting(given)
    os.environ["OMP_NUM_THREADS"] = str(setting.threads)  # training would take every core
    seeds = given.seeds or (1 if setting.quick else SEEDS)
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.encoded or Path(temporary)
        if not given.encoded:
            rows = QUICK_ROWS if setting.quick else 100 * QUICK_ROWS
            Draw(schema=MOVIELENS, shares=GENRES).write(folder, rows={"train": rows, "validation": rows // 10})
        content: Figures = {"models": {name: trained(name, folder, seeds) for name in given.models}}
    content["head"] = measure.head(setting) | {"clock": "wall"}
    measure.save(setting, "precision", content, markdown(content))


def trained(name: str, folder: Path, seeds: int) -> list[Figures]:
    """For each seed, of each precision what the epoch's history says."""
    train, validation = EncodedSplit(folder, "train"), EncodedSplit(folder, "validation")
    model, training = configured(measure.ROOT, name)
    found = []
    for seed in range(1, seeds + 1):
        line: Figures = {}
        for precision in PRECISIONS if seed % 2 else reversed(PRECISIONS):
            config = TrainingConfig.from_dict({**training, "epochs": 1, "precision": precision})
            torch.manual_seed(seed)
            made = build(name, train.inputs, **model)
            with tempfile.TemporaryDirectory() as kept:
                result = fit(made, train, validation, config, seed=seed, checkpoints=Path(kept), device="cpu")
            history = result.history[0]
            rate, area = history["rows_per_second"], history["validation_auc"]
            line[precision] = {"seconds": train.rows / rate, "rows_per_second": rate, "auc": area}
        print(name, seed, line, file=sys.stderr)
        found.append(line)
    return found


def markdown(content: Figures) -> list[str]:
    """A line per model."""
    columns = ["model", *(f"s, {p}" for p in PRECISIONS), *(f"rows/s, {p}" for p in PRECISIONS), "rows/s, ratio"]
    columns += [f"AUC, {p}" for p in PRECISIONS] + ["AUC, difference by seed"]
    rows = []
    for name, lines in content["models"].items():
        of = {(p, k): [line[p][k] for line in lines] for p in PRECISIONS for k in ("seconds", "rows_per_second", "auc")}
        middle = {key: statistics.median(values) for key, values in of.items()}
        cells = [name, *(f"{middle[p, 'seconds']:.1f}" for p in PRECISIONS)]
        cells += [f"{middle[p, 'rows_per_second']:,.0f}" for p in PRECISIONS]
        cells += [measure.spread(of["bfloat16", "rows_per_second"], of["float32", "rows_per_second"])]
        cells += [f"{statistics.mean(of[p, 'auc']):.4f}" for p in PRECISIONS]
        gaps = [line["bfloat16"]["auc"] - line["float32"]["auc"] for line in lines]
        rows.append([*cells, ", ".join(f"{gap:+.4f}" for gap in gaps)])
    what = "an epoch of each seed; medians of the seeds, means of AUC"
    return ["# Training in bf16", "", *measure.head_lines(content["head"], what), *measure.table(columns, rows)]


if __name__ == "__main__":
    main()
