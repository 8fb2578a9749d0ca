"""Make what a paper's table compares, as ``compare`` does, and lay it beside the paper's numbers."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...comparison.entries import Entry, section, seeds, workers
from ...comparison.papers import SIZES, PaperTable, planned
from ...schema import Variant
from ..compare.jobs import make
from ..compare.nodes import command, made, plan, read, sketch

if TYPE_CHECKING:
    from ...comparison.side_by_side import SideBySide

logger = logging.getLogger(__name__)
COUNTED = 2000  # rows of the batch that operations are counted on
Writer = Callable[[Path], None]


def train_rows(
    variant: Variant,
    encoded: Path,
    paper_table: PaperTable,
    results: Path,
    checkpoints: Path,
    parameters: Mapping[str, Any],
) -> dict[str, Any]:
    """Every row of the table with every seed of ``compare.seeds``; what any table or comparison has made is kept.

    A table of sizes is counted without training.

    Returns:
        as ``compare.train_each``, with ``sizes`` by row and ``missing``: rows whose architecture is not here.
    """
    entries, missing = planned(paper_table, parameters)
    for name, why in missing.items():
        logger.warning("%s is left out: %s", name, why)
    about = {"command": command(), "missing": missing, "sizes": {}}
    if not paper_table.trained:
        wanted = {column.metric for column in paper_table.ours}
        return {**about, "entries": {}, "results": [], "sizes": sizes(entries, encoded, wanted)}
    chosen = section(parameters)
    jobs = plan(entries, seeds(chosen), variant, encoded, results, checkpoints, parameters)
    make(jobs, workers(chosen))
    return {**about, **made(jobs)}


def lay_out(
    variant: Variant, encoded: Path, paper_table: PaperTable, results: Path, reproduced: dict[str, Any]
) -> Writer:
    """``table.md``, ``table.html``, ``table.parquet`` and, for a figure, ``figure.png``."""
    from ...comparison import side_by_side

    sides = _sides(encoded, paper_table, results, reproduced)
    facts = {
        "paper": paper_table.paper,
        "our data": f"{variant.schema.name}: {variant.schema.description or 'a log of ours'}",
        "domains": f"{variant.domain.name} ({sides.domains})",
        "split": variant.split.name,
        "features": variant.feature_set.name,
        "label": variant.label.name,
        "date": time.strftime("%Y-%m-%d %H:%M"),
    }
    if reproduced.get("command"):
        facts["command"] = reproduced["command"]

    def write(folder: Path) -> None:
        side_by_side.write(folder, sides, ours=data_name(variant), facts=facts)

    return write


def _sides(encoded: Path, paper_table: PaperTable, results: Path, reproduced: Mapping[str, Any]) -> SideBySide:
    from ...comparison.side_by_side import SideBySide
    from ...inputs import InputSchema

    inputs = InputSchema.from_dict(json.loads((encoded / "inputs.json").read_text(encoding="utf-8")))
    return SideBySide.of(
        paper_table,
        read(reproduced, results),
        sizes=reproduced["sizes"],
        domains=inputs.domains,
        missing=reproduced["missing"],
    )


def data_name(variant: Variant) -> str:
    """``movielens (age-user_time-full-click)``"""
    return f"{variant.schema.name} ({variant.name})"


def sizes(entries: list[Entry], encoded: Path, wanted: set[str]) -> dict[str, dict[str, float]]:
    """Parameters and operations of each entry on the encoded data, as far as wanted."""
    import numpy as np

    from ...evaluation import cost
    from ...models import build
    from ...tensors import EncodedSplit

    rows = EncodedSplit(encoded, "train")

    def counted(entry: Entry) -> dict[str, float]:
        counts = cost.parameters(build(entry.architecture, rows.inputs, **entry.model))
        return {"parameters": counts.total, "parameters_rest": counts.rest}

    found = sketch(entries, counted)
    if "training_flops" in wanted:
        batch = rows.batch(np.arange(min(COUNTED, len(rows))))
        for entry in entries:
            model = build(entry.architecture, rows.inputs, **entry.model)
            found[entry.label]["training_flops"] = cost.flops(model, batch, training=True)
    return {label: {name: float(v) for name, v in each.items() if name in SIZES} for label, each in found.items()}
