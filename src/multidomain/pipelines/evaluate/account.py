"""What a scored test split says beyond its metrics: by segment, with intervals, beside a reference; and the cost."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import ConfigurationError, DataError
from ...schema import Variant

if TYPE_CHECKING:
    import ibis.expr.types as ir
    import pandas as pd
    import pyarrow as pa

    from ...evaluation.account import Rows

logger = logging.getLogger(__name__)


def reference(
    variant: Variant, training_frame: ir.Table, predictions: ir.Table, model: Path, reference: str | None
) -> pa.Table:
    """``impression_id, score, model`` of the test split by the champion that the new model is compared with.

    No rows when there is none yet, or when it no longer reads these features (said in the log).

    Args:
        variant: names the registered model, with the architecture.
        training_frame: rows as the feature stage delivers them.
        predictions: of the new model.
        model: its folder.
        reference: an architecture; None: the new model's own.

    Raises:
        ConfigurationError: an architecture that does not exist.
    """
    import pyarrow as pa

    from ...models import architectures
    from ...packaging import champion

    if reference is not None and reference not in architectures():
        raise ConfigurationError(
            f"reference: there is no architecture '{reference}'. Allowed: {', '.join(architectures())}, or null."
        )
    own = json.loads((model / "model.json").read_text(encoding="utf-8"))["architecture"]
    found = champion.current(variant.key, reference or own)
    if found is None:
        if reference is not None:
            logger.warning("no %s is registered for %s yet: there is nothing to compare with", reference, variant.key)
        return _no_scores(predictions)
    try:
        scored = champion.scores(*found, tested(training_frame))
    except DataError as error:
        logger.warning("the champion is not compared with: %s", error)
        return _no_scores(predictions)
    return scored.append_column("model", pa.array([f"{found[0]}/{found[1]}"] * len(scored)))


def tested(training_frame: ir.Table) -> ir.Table:
    """The rows of the test split."""
    return training_frame.filter(training_frame.split == "test")


def account(
    training_frame: ir.Table, predictions: ir.Table, reference: ir.Table, session_gap_minutes: float
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Metrics by segment with intervals, and the model beside its reference: see :func:`evaluation.account.account`.

    Args:
        training_frame: rows as the feature stage delivers them, all splits.
        predictions: of the model.
        reference: of the model compared with; without rows when there is none.
        session_gap_minutes: a longer silence of a user begins a new session.

    Raises:
        ConfigurationError: the gap is no positive number.
        DataError: the tables hold different impressions.
    """
    from ...evaluation.account import account as told

    if isinstance(session_gap_minutes, bool) or not isinstance(session_gap_minutes, int | float):
        raise ConfigurationError(f"session_gap_minutes must be a number, got {session_gap_minutes!r}")
    if not session_gap_minutes > 0:
        raise ConfigurationError(f"session_gap_minutes must be above 0, got {session_gap_minutes:g}")
    names = reference.model.topk(1).to_pandas()["model"].tolist()
    table, about = told(
        scored_rows(training_frame, predictions, reference if names else None), session_gap_minutes=session_gap_minutes
    )
    if about["reference"] is not None:
        about["reference"]["model"] = names[0]
    return table, about


def cost(encoded: Path, model: Path, history: pd.DataFrame, device: str | None) -> dict[str, Any]:
    """Parameters, rows per second in training, milliseconds to score 2,000 rows."""
    import torch

    from ...evaluation import cost as costs
    from ...packaging.scorer import restore
    from ...tensors import EncodedSplit
    from ...training.device import choose_device, use_available_cores

    network, chosen = restore(model), choose_device(device)
    use_available_cores()
    counts = costs.parameters(network)
    return {
        "parameters_embedding": counts.embedding,
        "parameters_rest": counts.rest,
        "training_rows_per_second": float(history["rows_per_second"].median()),
        "inference_ms_per_2000_rows": costs.inference_ms(network, EncodedSplit(encoded, "test"), chosen),
        "device": str(chosen),
        "threads": torch.get_num_threads(),
    }


def scored_rows(training_frame: ir.Table, predictions: ir.Table, reference: ir.Table | None) -> Rows:
    """The scored test split beside what is known of its users, items and times, and the scores of a reference.

    Raises:
        DataError: the tables hold different impressions.
    """
    import ibis

    from ...evaluation.account import Rows

    seen = training_frame.filter(training_frame.split == "train")
    of_user = seen.group_by("user").aggregate(user_rows=ibis._.count())
    of_item = seen.group_by("item").aggregate(item_rows=ibis._.count())
    about = tested(training_frame).select("impression_id", "user", "item", "group", "timestamp")
    joined = predictions.inner_join(about, "impression_id").left_join(of_user, "user").left_join(of_item, "item")
    columns = {
        "impression_id": joined.impression_id,
        "label": joined.label,
        "score": joined.score,
        "domain": joined.domain,
        "user": joined.user.hash(),
        "group": ibis.coalesce(joined.group.cast("string"), joined.impression_id.cast("string") + "/alone").hash(),
        "time": joined.timestamp,
        "user_rows": joined.user_rows.fill_null(0),
        "item_rows": joined.item_rows.fill_null(0),
    }
    if "raw_score" in predictions.columns:
        columns["raw"] = joined.raw_score
    table = joined.select(**columns)
    if reference is not None:
        table = table.inner_join(reference.select("impression_id", reference=reference.score), "impression_id")
    frame = table.order_by("impression_id").to_pandas()
    expected = int(predictions.count().execute())
    if len(frame) != expected:
        raise DataError(
            f"The features{' and the reference' if reference is not None else ''} hold {len(frame):,} of {expected:,} "
            "impressions that were predicted: they were made again since. Run the whole pipeline with "
            "--only-missing-outputs."
        )
    given = {name: frame[name].to_numpy() for name in frame.columns if name not in ("impression_id", "time")}
    return Rows(**given, time=frame["time"])


def _no_scores(predictions: ir.Table) -> pa.Table:
    import pyarrow as pa

    kind = predictions.schema()["impression_id"].to_pyarrow()
    return pa.schema({"impression_id": kind, "score": pa.float64(), "model": pa.string()}).empty_table()
