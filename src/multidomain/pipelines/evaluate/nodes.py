"""Score the test split with a trained model, once, and measure it overall and per domain."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import DataError
from ...schema import Variant

if TYPE_CHECKING:
    import ibis.expr.types as ir
    import numpy as np
    import numpy.typing as npt
    import pandas as pd
    import pyarrow as pa

SPLIT = "test"
Writer = Callable[[Path], None]


def predict(variant: Variant, encoded: Path, model: Path, device: str | None) -> pa.Table:
    """One row per impression of the test split: ``impression_id, domain, label, score`` (a probability, float64).

    Raises:
        DataError: the test split is empty or has one class only.
    """
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    from ...evaluation.report import require_both_classes
    from ...packaging.scorer import restore
    from ...tensors import EncodedSplit
    from ...training.prediction import predict as score

    rows = EncodedSplit(encoded, SPLIT)
    require_both_classes(rows.label, split=SPLIT, name=variant.key)
    scores = score(restore(model), rows, device=device)
    table = pq.read_table(encoded / SPLIT / "rows.parquet", columns=["impression_id", "domain"])
    table = table.append_column("label", pa.array(np.asarray(rows.label, dtype=np.int8)))
    return table.append_column("score", pa.array(np.asarray(scores, dtype=np.float64)))


def evaluate(predictions: ir.Table, encoded: Path) -> dict[str, Any]:
    """AUC, GAUC, PCOC, log loss and calibration error, overall and for each known domain; undefined values are null.

    Of a simulated log also what the truth itself reaches.
    """
    from ...evaluation import report

    frame = predictions.to_pandas()
    domains = json.loads((encoded / "domains.json").read_text(encoding="utf-8"))
    label, score = frame["label"].to_numpy(), frame["score"].to_numpy()
    group, truths = test_rows(frame["impression_id"], encoded)
    return report.evaluate(label, score, group, frame["domain"].to_numpy(), domains, **truths)


def draw(
    variant: Variant, model: Path, predictions: ir.Table, metrics: dict[str, Any], history: pd.DataFrame
) -> Writer:
    """ROC, calibration, PCOC and training history as PNG files, and a page that holds them all."""
    from ...evaluation import plots

    architecture = json.loads((model / "model.json").read_text(encoding="utf-8"))["architecture"]
    overall = metrics["overall"]
    facts = {
        "data set": variant.schema.name,
        "domains": f"{variant.domain.name} ({len(metrics['domains'])})",
        "split": f"{variant.split.name}, {overall['rows']:,} test rows",
        "features": variant.feature_set.name,
        "label": variant.label.name,
        "epochs": str(len(history)),
    }

    def write(folder: Path) -> None:
        frame = predictions.select("domain", "label", "score").to_pandas()
        title = f"{architecture} on {variant.key}"
        plots.write(folder, predictions=frame, metrics=metrics, history=history, title=title, facts=facts)

    return write


def explain(encoded: Path, model: Path, seed: int, device: str | None) -> Writer:
    """What the model does with a sample of the test split, domain by domain, as pictures and numbers."""
    from ...evaluation import insights
    from ...packaging.scorer import restore
    from ...tensors import EncodedSplit

    network = restore(model)
    collected = insights.collect(network, EncodedSplit(encoded, SPLIT), seed=seed, device=device)
    domains = json.loads((encoded / "domains.json").read_text(encoding="utf-8"))

    def write(folder: Path) -> None:
        insights.write(folder, collected, domains=domains, labels=network.insight_labels())

    return write


def test_rows(
    impressions: pd.Series, encoded: Path
) -> tuple[npt.NDArray[np.int64], dict[str, npt.NDArray[np.float64]]]:
    """The group of each impression as a number (one without is a group of its own), and the truth where it is known.

    Raises:
        DataError: the predictions are of other impressions than the encoded test split.
    """
    import numpy as np
    import pandas as pd

    from ...schema import TRUTHS

    rows = pd.read_parquet(encoded / SPLIT / "rows.parquet")
    at = pd.Index(rows["impression_id"]).get_indexer(pd.Index(impressions))
    if len(at) != len(rows) or (at < 0).any():
        raise DataError(
            f"The predictions hold {len(at):,} impressions, {int((at < 0).sum()):,} of them not in the encoded "
            f"test split of {len(rows):,} rows ({encoded}): they were made from other data. Run the prediction again."
        )
    code = pd.factorize(rows["group"])[0].astype(np.int64)
    alone = code < 0
    code[alone] = -1 - np.arange(int(alone.sum()))
    return np.asarray(code[at]), {name: rows[name].to_numpy()[at] for name in TRUTHS if name in rows}
