"""How close training comes to its arithmetic, and whether the input keeps up.

    python -m benchmarks.bound                               # drawn rows of MovieLens-1M's shape
    python -m benchmarks.bound --encoded FOLDER --auc 3      # rows of an encoded variant; AUC of three seeds

- the bound: a bare step of linear layers and ReLU of the same widths with fused AdamW, plus a bare step of one
  embedding_bag over the same ids with the lazy update; nothing else, everything laid out beforehand;
- the loop: batches of an EpochLoader over the split on disk, step, guard, optimizers. "Bare" models are without
  normalization, auxiliary network and dropout, which the bound has not either; the others are as configured;
- the input alone: all batches of an epoch, in the orders that training knows;
- AUC after an epoch whose rows were shuffled within small windows, and after one of a full permutation.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from multidomain.batch import Batch
from multidomain.inputs import InputSchema
from multidomain.models import build
from multidomain.tensors import EncodedSplit
from multidomain.training.config import TrainingConfig
from multidomain.training.loading import EpochLoader
from multidomain.training.loop import fit
from multidomain.training.optimizers import Optimizers

from . import measure
from .drawn import GENRES, MOVIELENS, Draw
from .measure import Figures, Setting
from .training_step import TrainingStep, configured

FLOOR, INPUT_FLOOR = 0.8, 10.0
WINDOW = 1 << 16  # rows of a small window: of as many blocks as one of the size in use
BARE = {"normalization": "none", "auxiliary": False, "dropout": 0.0}
TRAINED_ROWS, QUICK_ROWS = 400_000, 20_000  # of a drawn split
TURN = 1.0  # seconds at least of one turn: many batches, so that the loader's head start does not count
ORDERS: dict[str, dict[str, Any]] = {
    "small windows": {"window": WINDOW},
    "full permutation": {},
    "one domain per batch": {"batching": "domain"},
}


def main() -> None:
    """Measure, tell."""
    parser = measure.parser("bound", __doc__)
    parser.add_argument("--encoded", type=Path, help="an encoded variant, instead of drawn rows")
    parser.add_argument("--models", nargs="+", default=["dnn", "star"], help="with one stack of hidden layers")
    parser.add_argument("--auc", type=int, default=0, metavar="SEEDS", help="AUC after an epoch of each kind of order")
    given = parser.parse_args()
    setting = measure.setting(given)
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.encoded or Path(temporary)
        if not given.encoded:
            rows = QUICK_ROWS if setting.quick else TRAINED_ROWS
            Draw(schema=MOVIELENS, shares=GENRES).write(folder, rows={"train": rows, "validation": rows // 10})
        content: Figures = {"shares": [share(name, folder, setting) for name in given.models]}
        content["input"] = inputs_alone(folder, setting)
        content["auc"] = areas(given, folder)
    content["head"] = measure.head(setting)
    measure.save(setting, "bound", content, markdown(content))


# --- the loop against the bound ----------------------------------------------------------------------------------


def share(name: str, folder: Path, setting: Setting) -> Figures:
    """Seconds per step of the loop, bare and as configured, and of the two parts of its bound."""
    split = EncodedSplit(folder, "train")
    model, training = configured(measure.ROOT, name)
    size = 256 if setting.quick else training["batch_size"]
    training = {**training, "batch_size": size}
    batches = [
        split.batch(rows) for rows in itertools.islice(EpochLoader(split, batch_size=size, seed=1).row_batches(1), 16)
    ]
    width = build(name, split.inputs, **model).inputs.width
    steps = {
        "bare": Loop(name, split, model={**model, **BARE}, training=training),
        "configured": Loop(name, split, model=model, training=training),
        "layers": BareLayers(size, width, model["hidden"]),
        "embedding": BareEmbedding(split.inputs, batches, model["embedding_dim"]),
    }
    at_least = 0.0 if setting.quick else TURN
    found = measure.interleaved(steps, rounds=setting.rounds, clock=setting.clock, at_least=at_least)
    print(name, {part: f"{1000 * statistics.median(s):.1f} ms" for part, s in found.items()}, file=sys.stderr)
    return {"model": name, "rows": size, "seconds": found, **of_bound(found)}


def of_bound(found: dict[str, list[float]]) -> dict[str, float]:
    """The share of the bound that each loop reaches, round by round: (layers + embedding) / loop."""
    bound = [a + b for a, b in zip(found["layers"], found["embedding"], strict=True)]
    return {name: measure.ratio(bound, found[name]) for name in ("bare", "configured")}


class Loop:
    """Training as it goes on over epochs: a call is one step with the next batch from disk."""

    def __init__(self, name: str, split: EncodedSplit, *, model: dict[str, Any], training: dict[str, Any]) -> None:
        self._loader = EpochLoader(split, batch_size=training["batch_size"], seed=1)
        self._step = TrainingStep(name, split.inputs, [split.batch(slice(0, 2))], model=model, training=training)
        self._batches = self._epochs()

    def _epochs(self) -> Iterator[Batch]:
        for epoch in itertools.count(1):
            yield from self._loader.epoch(epoch)

    def __call__(self) -> None:
        """One step."""
        self._step.timed(next(self._batches))


class BareLayers:
    """Linear, ReLU … linear, binary cross entropy, backward to the input too, fused AdamW."""

    def __init__(self, rows: int, width: int, hidden: Sequence[int]) -> None:
        widths = [width, *hidden, 1]
        layers: list[nn.Module] = []
        for i, o in pairwise(widths):
            layers += [nn.Linear(i, o), nn.ReLU()]
        self._net = nn.Sequential(*layers[:-1])
        self._x, self._label = torch.randn(rows, width, requires_grad=True), torch.randint(0, 2, (rows,)).float()
        self._adam = torch.optim.AdamW(self._net.parameters(), fused=True)

    def __call__(self) -> None:
        """One step."""
        loss = F.binary_cross_entropy_with_logits(self._net(self._x)[:, 0], self._label)
        self._adam.zero_grad()
        self._x.grad = None
        loss.backward()
        self._adam.step()


class BareEmbedding(nn.Module):
    """One embedding_bag over the ids of the batches, its backward pass, the lazy update."""

    def __init__(self, schema: InputSchema, batches: Sequence[Batch], features: int) -> None:
        super().__init__()
        self.table = nn.EmbeddingBag(sum(schema.vocabularies.values()), features, mode="sum", sparse=True)
        self._features = features
        self._laid_out = itertools.cycle([laid_out(schema, batch) for batch in batches])
        self._optimizers = Optimizers(self, TrainingConfig(), steps_per_epoch=1_000_000)
        self._number = 0

    def __call__(self) -> None:
        """One step."""
        ids, starts, weights = next(self._laid_out)
        self._optimizers.zero_grad()
        pooled = self.table(ids, starts, per_sample_weights=weights)
        pooled.backward(torch.ones_like(pooled))
        self._optimizers.step(self._number)
        self._number += 1


def laid_out(schema: InputSchema, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """Rows of one table for all ids of a batch, where each field of each row starts, and the weights of a mean."""
    starts = dict(zip(schema.vocabularies, [0, *accumulate(schema.vocabularies.values())], strict=False))
    names = [*schema.categorical, *schema.history.values(), *schema.bags.values()]
    of_history = [batch.history[name] for name in schema.history]
    columns = [*batch.categorical.split(1, 1), *of_history, *(batch.bags[name] for name in schema.bags)]
    ids = torch.cat([ids.long() + starts[name] for name, ids in zip(names, columns, strict=True)], 1)
    present = [(ids != 0).float() for ids in columns]
    weights = torch.cat([part / part.sum(1, keepdim=True).clamp(min=1) for part in present], 1)
    firsts = torch.tensor([0, *accumulate(part.shape[1] for part in columns)][:-1])
    rows = torch.arange(len(batch)).unsqueeze(1) * ids.shape[1] + firsts
    return ids.flatten(), rows.flatten(), weights.flatten()


# --- the input ---------------------------------------------------------------------------------------------------


def inputs_alone(folder: Path, setting: Setting) -> Figures:
    """Seconds per row of a whole epoch of batches that nothing works on, in each order."""
    split = EncodedSplit(folder, "train")
    size = 256 if setting.quick else 2000
    loaders = {name: EpochLoader(split, batch_size=size, seed=1, **order) for name, order in ORDERS.items()}
    epochs = {
        name: (lambda loader=loader: sum(len(batch) for batch in loader.epoch(1))) for name, loader in loaders.items()
    }
    rows = {name: call() for name, call in epochs.items()}
    found = measure.interleaved(epochs, rounds=setting.rounds, clock=setting.clock)
    return {
        name: {"rows": rows[name], "rows_per_second": rows[name] / statistics.median(s)} for name, s in found.items()
    }


def areas(given: argparse.Namespace, folder: Path) -> list[Figures]:
    """Validation AUC after one epoch, per seed, with windows of some blocks and with a full permutation."""
    train, validation = EncodedSplit(folder, "train"), EncodedSplit(folder, "validation")
    model, training = configured(measure.ROOT, "dnn")
    found = []
    for seed in range(1, given.auc + 1):
        line: Figures = {"seed": seed}
        for order, window in (("small windows", WINDOW), ("full permutation", 1 << 40)):
            config = TrainingConfig.from_dict({**training, "epochs": 1, "shuffle_window": window})
            torch.manual_seed(seed)
            made = build("dnn", train.inputs, **model)
            with tempfile.TemporaryDirectory() as kept:
                result = fit(made, train, validation, config, seed=seed, checkpoints=Path(kept), device="cpu")
            line[order] = result.history[0]["validation_auc"]
        print(line, file=sys.stderr)
        found.append(line)
    return found


# --- telling -----------------------------------------------------------------------------------------------------


def markdown(content: Figures) -> list[str]:
    """All figures."""
    lines = ["# Training against its bound", "", *measure.head_lines(content["head"])]
    columns = ["model", "rows", "layers", "embedding", "bound", "loop, bare", "share", "loop, configured", "share "]
    rows = []
    for one in content["shares"]:
        ms = {part: 1000 * statistics.median(s) for part, s in one["seconds"].items()}
        cells = [one["model"], f"{one['rows']:,}", ms["layers"], ms["embedding"], ms["layers"] + ms["embedding"]]
        cells += [ms["bare"], one["bare"], ms["configured"], one["configured"]]
        rows.append([cell if isinstance(cell, str) else f"{cell:.2f}" for cell in cells])
    lines += [f"Milliseconds per step; wanted is a share of {FLOOR} of the bound.", "", *measure.table(columns, rows)]
    lines += ["", f"The input alone; wanted is {INPUT_FLOOR:g} times the rate of training.", ""]
    rates = {
        f"{one['model']}, {kind}": one["rows"] / statistics.median(one["seconds"][kind])
        for one in content["shares"]
        for kind in ("bare", "configured")
    }
    rows = [
        [name, f"{one['rows_per_second']:,.0f}", *(f"{one['rows_per_second'] / rate:.1f}×" for rate in rates.values())]
        for name, one in content["input"].items()
    ]
    lines += measure.table(
        ["order", "rows/s", *(f"of training {name} ({rate:,.0f}/s)" for name, rate in rates.items())], rows
    )
    if content["auc"]:
        lines += ["", f"Validation AUC of dnn after one epoch; a small window is {WINDOW:,} rows.", ""]
        lines += _areas(content["auc"])
    return lines


def _areas(found: list[Figures]) -> list[str]:
    small, full = ([line[name] for line in found] for name in ("small windows", "full permutation"))
    rows = [
        [line["seed"], f"{a:.4f}", f"{b:.4f}", f"{a - b:+.4f}"] for line, a, b in zip(found, small, full, strict=True)
    ]
    means = [float(np.mean(one)) for one in (small, full)]
    rows.append(["mean", *(f"{mean:.4f}" for mean in means), f"{means[0] - means[1]:+.4f}"])
    return measure.table(["seed", "small windows", "full permutation", "difference"], rows)


if __name__ == "__main__":
    main()
