"""How long a batch takes to score: STAR as it is served beside Shared Bottom of the same widths, AdaptDHM and DNN.

    python -m benchmarks.served

Each model in its serving form, in inference mode, on drawn rows of MovieLens-1M's shape (18 domains, histories too),
without auxiliary networks: 100 rows are the candidates of a request, 16384 a batch of ``predict``. Rows of all domains
by their shares, and rows of one domain, as in a request. Shared Bottom shares embeddings alone, as in STAR's paper, and
has no normalization to compute; STAR's is folded into its first layer.
"""

from __future__ import annotations

import itertools
import statistics
import sys
from collections.abc import Sequence
from typing import Any

import torch

from multidomain.batch import Batch
from multidomain.models import build

from . import measure
from .drawn import GENRES, MOVIELENS, Draw
from .measure import Figures, Setting

WIDTHS = (512, 256, 128, 64, 32, 16)
ROWS = (100, 1_000, 16_384)
STAR, BASE, CEILING = "star", "shared_bottom", 1.05
BATCHES, TURN = 8, 0.3
MODELS: dict[str, dict[str, Any]] = {
    STAR: {"hidden": WIDTHS},
    BASE: {"hidden": [], "tower": WIDTHS, "normalization": "none"},
    "adaptdhm": {"hidden": WIDTHS},
    "dnn": {"hidden": WIDTHS, "normalization": "none"},
}


def main() -> None:
    """Measure, tell."""
    parser = measure.parser("served", __doc__)
    parser.add_argument("--rows", type=int, nargs="+", help=f"of a batch ({', '.join(map(str, ROWS))})")
    given = parser.parse_args()
    setting = measure.setting(given)
    widths = (16, 8) if setting.quick else WIDTHS
    models = {name: trained(name, widths) for name in MODELS}
    rows = given.rows or ((100,) if setting.quick else ROWS)
    content: Figures = {"runs": [scored(models, size, one, setting) for size in rows for one in (False, True)]}
    content["head"] = measure.head(setting)
    measure.save(setting, "served", content, markdown(content))


def trained(name: str, widths: Sequence[int]) -> torch.nn.Module:
    """The serving form of a model that has met every domain: one it has not met would be served as unknown."""
    options = {key: list(widths) if value == WIDTHS else value for key, value in MODELS[name].items()}
    torch.manual_seed(1)
    model = build(name, MOVIELENS, auxiliary=False, **options).train()
    with torch.no_grad():
        for batch in Draw(schema=MOVIELENS).batches(2_000, 5):
            model(batch)
    return model.eval().serving_form().eval()


def scored(models: dict[str, torch.nn.Module], rows: int, one_domain: bool, setting: Setting) -> Figures:
    """Seconds per batch of each model, in turn."""
    batches = Draw(schema=MOVIELENS, shares=GENRES).batches(rows, BATCHES, one_domain=one_domain)
    calls = {name: Scoring(model, batches) for name, model in models.items()}
    at_least = 0.0 if setting.quick else TURN
    found = measure.interleaved(calls, rounds=setting.rounds, clock=setting.clock, at_least=at_least)
    line = {"rows": rows, "domains": "one" if one_domain else "all", "seconds": found}
    print({**line, "seconds": {name: statistics.median(s) for name, s in found.items()}}, file=sys.stderr)
    return line


class Scoring:
    """A call scores the next batch."""

    def __init__(self, model: torch.nn.Module, batches: Sequence[Batch]) -> None:
        self._model, self._batches = model, itertools.cycle(batches)

    @torch.inference_mode()
    def __call__(self) -> torch.Tensor:
        """Probabilities (B,)."""
        return torch.sigmoid(self._model(next(self._batches)))


def markdown(content: Figures) -> list[str]:
    """Milliseconds of each model, and STAR's over Shared Bottom's."""
    rows = []
    for line in content["runs"]:
        ratio = measure.ratio(line["seconds"][STAR], line["seconds"][BASE])
        ms = [f"{1000 * statistics.median(seconds):.3f}" for seconds in line["seconds"].values()]
        rows.append([f"{line['rows']:,}", line["domains"], *ms, f"{ratio:.3f}", "yes" if ratio <= CEILING else "no"])
    columns = ["rows", "domains", *content["runs"][0]["seconds"], f"{STAR} / {BASE}", f"at most {CEILING}"]
    title = ["# Scoring a batch, milliseconds", "", *measure.head_lines(content["head"])]
    return [*title, *measure.table(columns, rows)]


if __name__ == "__main__":
    main()
