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

    from ...tensors import EncodedSplit

SPLIT = "test"
Writer = Callable[[Path], None]


def calibrate(encoded: Path, model: Path, calibration: str | None, device: str | None) -> dict[str, Any]:
    """Curves from the model's logits to probabilities, fitted on the validation split; ``{}`` when none are asked for.

    Args:
        encoded: the folder of the encoded variant.
        model: the trained model's folder.
        calibration: ``platt``, ``isotonic``, ``shrunk`` or None.
        device: where to score.

    Raises:
        ConfigurationError: another kind.
    """
    from ...evaluation import calibrate as curves
    from ...packaging.scorer import restore
    from ...tensors import EncodedSplit
    from ...training.prediction import predicted_logits

    curves.require_kind(calibration)
    if calibration is None:
        return {}
    rows = EncodedSplit(encoded, "validation")
    logit = predicted_logits(restore(model), rows, device)
    fitted = curves.fit(calibration, logit, rows.label, _domains(rows), rows.inputs.domains)
    return fitted.to_dict()


def predict(
    variant: Variant, encoded: Path, model: Path, device: str | None, calibration: dict[str, Any] | None = None
) -> pa.Table:
    """One row per impression of the test split: ``impression_id, domain, label, score`` (a probability, float64).

    With a calibration, ``score`` is what a package gives, and ``raw_score`` what it was before.

    Raises:
        DataError: the test split is empty or has one class only.
    """
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    from ...calibration import Calibration, logistic
    from ...evaluation.report import require_both_classes
    from ...packaging.scorer import restore
    from ...tensors import EncodedSplit
    from ...training.prediction import predicted_logits

    rows = EncodedSplit(encoded, SPLIT)
    require_both_classes(rows.label, split=SPLIT, name=variant.key)
    logit = predicted_logits(restore(model), rows, device)
    table = pq.read_table(encoded / SPLIT / "rows.parquet", columns=["impression_id", "domain"])
    table = table.append_column("label", pa.array(np.asarray(rows.label, dtype=np.int8)))
    raw = logistic(logit.astype(np.float64))
    if not calibration:
        return table.append_column("score", pa.array(raw))
    scores = Calibration.from_dict(calibration).probabilities(logit, _domains(rows))
    return table.append_column("score", pa.array(scores)).append_column("raw_score", pa.array(raw))


def _domains(rows: EncodedSplit) -> npt.NDArray[np.int64]:
    import numpy as np

    return np.asarray(rows.domain, dtype=np.int64)


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
    variant: Variant,
    model: Path,
    predictions: ir.Table,
    metrics: dict[str, Any],
    history: pd.DataFrame,
    segments: ir.Table,
    account: dict[str, Any],
    cost: dict[str, Any],
) -> Writer:
    """Curves, segments and training history as PNG files, and a page that holds them all beside the account."""
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
        told = (segments.to_pandas(), account, cost)
        plots.write(folder, predictions=frame, metrics=metrics, history=history, title=title, facts=facts, account=told)

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
