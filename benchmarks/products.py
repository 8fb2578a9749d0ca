"""Products of float32 as PyTorch chooses to compute them, and by oneDNN.

    python -m benchmarks.products

A linear layer forward, its input's gradient and its weight's, for the rows of a batch and of a domain.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from multidomain.layers import products

from . import measure
from .measure import Figures

SHAPES = ((2048, 320, 128), (2048, 128, 64), (2000, 280, 512), (2000, 512, 256), (112, 512, 256), (112, 128, 64))
TURN = 0.02  # seconds


def main() -> None:
    """Measure, tell."""
    setting = measure.setting(measure.parser("products", __doc__).parse_args())
    torch.set_num_threads(setting.threads)
    lines = [{"shape": shape, "ms": taken(shape, setting)} for shape in SHAPES[: 1 if setting.quick else None]]
    content: Figures = {"used": products.faster_by_onednn(), "shapes": lines, "head": measure.head(setting)}
    measure.save(setting, "products", content, markdown(content))


def taken(shape: tuple[int, int, int], setting: measure.Setting) -> dict[str, list[float]]:
    """Milliseconds of each kind, round after round."""
    rows, i, o = shape
    x, weight, gradient = torch.randn(rows, i), torch.randn(o, i), torch.randn(rows, o)
    calls: dict[str, Callable[[], Tensor]] = {}
    for name, (a, b) in {
        "output": (x, weight),
        "gradient of the input": (gradient, weight.t()),
        "gradient of the weight": (gradient.t(), x.t()),
    }.items():
        calls[f"{name}, PyTorch's"] = partial(torch.mm, a, b.t())
        calls[f"{name}, oneDNN"] = partial(products._product, a, b)
    found = measure.interleaved(calls, rounds=setting.rounds, clock=setting.clock, at_least=TURN)
    return {name: [1000 * seconds for seconds in figures] for name, figures in found.items()}


def markdown(content: Figures) -> list[str]:
    """A line for each shape."""
    names = list(content["shapes"][0]["ms"])
    rows = []
    for line in content["shapes"]:
        ms = line["ms"]
        cells = [
            ", ".join(f"{statistics.median(ms[name]):.3f}" for name in pair)
            + f": {measure.ratio(ms[pair[0]], ms[pair[1]]):.2f}×"
            for pair in zip(names[::2], names[1::2], strict=True)
        ]
        rows.append([" × ".join(f"{size:,}" for size in line["shape"]), *cells])
    columns = ["rows × inputs × outputs", *(name.rpartition(",")[0] for name in names[::2])]
    used = "uses" if content["used"] else "does not use"
    return [
        "# Products of float32",
        "",
        *measure.head_lines(content["head"], "medians of {rounds} interleaved rounds"),
        "",
        "Milliseconds as PyTorch computes them, by oneDNN, and how many times faster that is. On this processor "
        f"training {used} oneDNN's.",
        "",
        *measure.table(columns, rows),
    ]


if __name__ == "__main__":
    main()
