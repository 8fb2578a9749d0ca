"""The model card: what a model was made of, how good it is where, what it is not to be trusted with, how to load it.

After Mitchell et al. 2019, "Model Cards for Model Reporting". A pure function of what a training left behind.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

FEW_ROWS = 1000  # of a domain in the test split, below which its metrics say little
SHOWN = {"rows": "rows", "auc": "AUC", "gauc": "GAUC", "pcoc": "PCOC", "logloss": "log loss", "ece": "ECE"}
LARGEST = 50  # domains that have a line of their own


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What a card tells.

    Attributes:
        model: the registered model's name.
        architecture: star, dnn …
        dataset, variant, label: of what, and what is predicted.
        licence, citation: of the data, as its schema gives them.
        rows: of each split.
        columns: what the model reads, name -> type in words.
        metrics: of the test split, as ``evaluation.report.evaluate`` returns them.
        data: fingerprint of the encoded data.
        revision: of the code.
        seed: of the training.
        settings: of architecture and training, flat.
        negative_rate: share of the training rows without a click that each epoch saw.
        calibration: its kind, fitted on validation rows; empty: none.
        onnx: whether the package has an ONNX file.
        measured_on: which rows the metrics are of.
    """

    model: str
    architecture: str
    dataset: str
    variant: str
    label: str
    licence: str = ""
    citation: str = ""
    rows: Mapping[str, int] = field(default_factory=dict)
    columns: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, Any]
    data: str
    revision: str
    seed: int
    settings: Sequence[tuple[str, Any]] = ()
    negative_rate: float = 1.0
    calibration: str = ""
    onnx: bool = False
    measured_on: str = "the test split, which no choice was made on"


def card(facts: Facts) -> str:
    """The card as Markdown."""
    parts = [
        f"# {facts.model}",
        f"The probability of `{facts.label}` for one impression, by the architecture `{facts.architecture}`, trained "
        f"on `{facts.dataset}`.",
        _section("Data", _data(facts)),
        _section("How good it is", [_scores(facts)]),
        _section("Limits", [f"- {limit}" for limit in limits(facts)]),
        _section("How to load it", _loading(facts)),
        _section("Columns", [_table(("column", "type"), facts.columns.items())]),
        _section("Settings", [_table(("setting", "value"), facts.settings)]),
    ]
    return "\n\n".join(parts) + "\n"


def limits(facts: Facts) -> list[str]:
    """What the model is not to be trusted with, each a sentence or two."""
    domains: Mapping[str, Mapping[str, Any]] = facts.metrics["domains"]
    empty = [name for name, values in domains.items() if not values["rows"]]
    few = [name for name, values in domains.items() if 0 < values["rows"] < FEW_ROWS]
    undefined = [name for name, values in domains.items() if values["rows"] and values["auc"] is None]
    found = []
    if few:
        found.append(
            f"{_named(few)}: fewer than {FEW_ROWS:,} rows in the test split. What is said of them above is uncertain."
        )
    if empty:
        found.append(f"{_named(empty)}: no row in the test split. Nothing is known of how well they are predicted.")
    if undefined:
        found.append(f"{_named(undefined)}: all rows of the test split have one label, so AUC is undefined (–).")
    found += [
        "A domain that training never saw is scored as the unknown domain; so is a value of a column as the unknown "
        "value of that column. No error is raised: watch how often that happens.",
        "The metrics are of one split, seed and time. How rows were chosen to be shown is in the labels: a model of "
        "clicks learns the position and the ranking that produced them, too.",
    ]
    if facts.negative_rate < 1:
        found.append(
            f"Each epoch saw {facts.negative_rate:.4g} of the training rows without `{facts.label}`. The scores are "
            "of the rows as they came: the correction is part of the model, nothing is to be done to a score."
        )
    return found


def _data(facts: Facts) -> list[str]:
    listed = {
        "data set": facts.dataset,
        "variant": facts.variant,
        "rows": ", ".join(f"{count:,} {split}" for split, count in facts.rows.items()),
        "fingerprint of the encoded data": facts.data,
        "code": facts.revision,
        "seed": facts.seed,
        "calibration, fitted on validation": facts.calibration,
        "licence of the data": facts.licence,
        "citation": facts.citation,
    }
    return [_table(("what", "value"), ((name, value) for name, value in listed.items() if value != ""))]


def _scores(facts: Facts) -> str:
    metrics = facts.metrics
    filled = {name: values for name, values in metrics["domains"].items() if values["rows"]}
    kept = set(sorted(filled, key=lambda name: -filled[name]["rows"])[:LARGEST])
    lines = [(name, *_cells(values)) for name, values in filled.items() if name in kept]
    lines.append(("**overall**", *_cells(metrics["overall"])))
    left = len(filled) - len(kept)
    note = (
        f"\n\nThe {LARGEST} largest of {len(filled):,} domains; metrics.json of the run has them all." if left else ""
    )
    return f"On {facts.measured_on}:\n\n{_table(('domain', *SHOWN.values()), lines)}{note}"


def _cells(values: Mapping[str, Any]) -> list[str]:
    return ["–" if (value := values.get(name)) is None else _number(name, value) for name in SHOWN]


def _number(name: str, value: float) -> str:
    return f"{value:,}" if name == "rows" else f"{value:.4f}"


def _loading(facts: Facts) -> list[str]:
    code = [
        "import mlflow",
        "",
        f'model = mlflow.pyfunc.load_model("models:/{facts.model}@champion")  # or the folder of this package',
        'scores = model.predict(rows)["score"]  # rows: a pandas frame with the columns below',
    ]
    if facts.onnx:
        code += [
            "",
            "# the same scores by onnxruntime",
            f'model = mlflow.pyfunc.load_model("models:/{facts.model}@champion", model_config={{"engine": "onnx"}})',
        ]
    return [
        "```python\n" + "\n".join(code) + "\n```",
        "The package carries its own code, encoder and weights: the project needs not be installed, and two versions "
        "may be loaded side by side. A frame that misses a column is refused by the column's name.",
    ]


def _section(title: str, blocks: Sequence[str]) -> str:
    lists = all(block.startswith("- ") for block in blocks)
    return f"## {title}\n\n" + ("\n" if lists else "\n\n").join(blocks)


def _table(head: Sequence[str], lines: Any) -> str:
    rows = [head, ["---"] * len(head), *([_cell(value) for value in line] for line in lines)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _cell(value: Any) -> str:
    """Text of one line, which no bar or line end can break."""
    return str(value).replace("|", "\\|").replace("\n", " ")


def _named(domains: Sequence[str]) -> str:
    shown = ", ".join(f"`{name}`" for name in domains[:10])
    return shown if len(domains) <= 10 else f"{shown} and {len(domains) - 10:,} more"
