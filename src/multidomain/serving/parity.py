"""Whether a request is given what training rows were given: features and scores, offline and online, side by side.

At each of some moments spread over the log an empty online store is loaded up to that moment. Impressions that came
after it are then asked for twice: from the online store by way of a request, and from the view tables by the
point-in-time join that makes training frames. Every feature must be the same, to the bit.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..draw import digest
from ..errors import DataError
from ..features import definitions, repository
from ..features.materialize import materialize
from ..features.request_time import TIME
from ..progress import progress
from ..schema import Variant
from .ranker import Ranker, Request

if TYPE_CHECKING:
    import ibis.expr.types as ir
    import numpy as np
    import pandas as pd
    import pyarrow as pa

    from ..packaging.scorer import Scorer

SHOWN = 60  # characters of a value in an example


@dataclass(frozen=True, kw_only=True)
class Parity:
    """What was found.

    Attributes:
        features: one row per column the model reads: ``feature``, ``rows`` compared, how many of them are ``equal``,
            ``differing`` (there on both sides) and ``missing`` (there on one side alone), and an ``example`` in words.
        moments: when.
        rows: how many impressions were compared.
        score_difference: the largest of their scores' absolute differences.
    """

    features: pd.DataFrame
    moments: tuple[datetime, ...]
    rows: int
    score_difference: float


def measure(
    variant: Variant, frame: ir.Table, scorer: Scorer, *, moments: int = 10, rows: int = 1000, seed: int = 2021
) -> Parity:
    """Compare ``rows`` impressions at each of the moments.

    Args:
        variant: registered with Feast.
        frame: its training frame.
        scorer: a model trained on it.
        moments: quantiles of the impressions' times.
        rows: drawn among the impressions at or after each moment.
        seed: of the draw.

    Raises:
        DataError: the variant was never registered, or the frame is empty.
    """
    import numpy as np
    import pandas as pd

    times = _moments(frame, moments)
    found: list[pd.DataFrame] = []
    difference = 0.0
    with progress(total=len(times) * rows, what="compare offline and online") as bar:
        for at in times:
            asked = _drawn(frame, scorer, at, rows, seed)
            offline, online = _both(variant, scorer, asked, at)
            found.append(compare(offline, online, asked["impression_id"].to_pylist()))
            apart = np.abs(scorer.score(offline) - scorer.score(online))
            difference = max(difference, float(apart.max(initial=0.0)))
            bar.update(rows)
    together = pd.concat(found).groupby("feature", sort=False)
    counts = together[["rows", "equal", "differing", "missing"]].sum()
    examples = together["example"].agg(lambda said: next((text for text in said if text), ""))
    features = counts.join(examples).reset_index()
    total = int(features["rows"].max())
    return Parity(features=features, moments=tuple(times), rows=total, score_difference=difference)


def compare(offline: pa.Table, online: pa.Table, ids: Sequence[Any]) -> pd.DataFrame:
    """Column by column: one row per feature with the columns of :attr:`Parity.features`."""
    import pandas as pd

    columns = [(name, offline[name].to_pylist(), online[name].to_pylist()) for name in offline.column_names]
    return pd.DataFrame([compare_column(*column, ids) for column in columns])


def compare_column(
    name: str, offline: Sequence[Any], online: Sequence[Any], ids: Sequence[Any], *, what: str = "impression"
) -> dict[str, Any]:
    """One row of :attr:`Parity.features`. ``ids`` and ``what`` say in the example which value it is."""
    pairs = list(zip(offline, online, strict=True))
    missing = [i for i, (one, other) in enumerate(pairs) if (one is None) != (other is None)]
    differing = [i for i, (one, other) in enumerate(pairs) if None not in (one, other) and not _same(one, other)]
    wrong, example = sorted([*missing, *differing]), ""
    if wrong:
        one, other = pairs[wrong[0]]
        example = f"{what} {ids[wrong[0]]}: offline {_short(one)}, online {_short(other)}"
    return {
        "feature": name,
        "rows": len(pairs),
        "equal": len(pairs) - len(wrong),
        "differing": len(differing),
        "missing": len(missing),
        "example": example,
    }


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    return bool(one == other) or (one != one and other != other)


def _moments(frame: ir.Table, count: int) -> list[datetime]:
    """Times of impressions, evenly spread over them."""
    shares = [(i + 1) / (count + 1) for i in range(count)]
    quantiles = frame.aggregate(at=frame.timestamp.epoch_seconds().quantile(shares)).to_pyarrow()["at"][0].as_py()
    if not quantiles:
        raise DataError("The training frame has no rows to compare.")
    return [datetime.fromtimestamp(int(second), UTC) for second in sorted(set(quantiles))]


def _drawn(frame: ir.Table, scorer: Scorer, at: datetime, rows: int, seed: int) -> pa.Table:
    """Impressions at or after a moment: their keys and what the model reads of the context."""
    import ibis

    keys = ["impression_id", "user", "item", "domain"]
    later = frame.filter(frame.timestamp >= ibis.literal(at.replace(tzinfo=None)))
    context = [name for name in scorer.columns if name in frame.columns and name not in keys]
    return later.order_by(digest(seed, later.impression_id)).limit(rows).select(*keys, *context).to_pyarrow()


def _both(variant: Variant, scorer: Scorer, asked: pa.Table, at: datetime) -> tuple[pa.Table, pa.Table]:
    """What the model would be given of these impressions at a moment, offline and online."""
    with (
        tempfile.TemporaryDirectory(prefix="multidomain-parity-") as folder,
        repository.scratch(variant, Path(folder)) as store,
    ):
        materialize(variant, until=at, store=store)
        ranker = Ranker(variant=variant, store=store, scorer=scorer)
        context = {name: asked[name].to_pylist() for name in ranker.context}
        return _offline(variant, store, ranker, asked, at), _online(ranker, asked, context, at)


def _offline(variant: Variant, store: Any, ranker: Ranker, asked: pa.Table, at: datetime) -> pa.Table:
    """By the point-in-time join."""
    import pyarrow as pa

    keys = asked.select(["user", "item", "domain"])
    entities = keys.append_column("event_timestamp", pa.array([at] * len(asked), pa.timestamp("us", "UTC")))
    entities = entities.append_column(TIME, entities["event_timestamp"].cast(pa.int64()))
    entities = entities.append_column("impression_id", asked["impression_id"])
    service = store.get_feature_service(definitions.service_name(variant))
    found = store.get_historical_features(features=service, entity_df=entities).to_arrow()
    if not found["impression_id"].equals(entities["impression_id"]):
        raise DataError("The offline store changed the order or the number of rows: use that of feature_store.yaml.")
    types = ranker.scorer.columns
    columns = {name: (asked if name in (*ranker.context, "domain") else found)[name] for name in types}
    return pa.table(columns).cast(pa.schema(list(types.items())))


def _online(ranker: Ranker, asked: pa.Table, context: Mapping[str, list[Any]], at: datetime) -> pa.Table:
    """By requests: the impressions of one user and domain are the candidates of one."""
    import numpy as np
    import pyarrow as pa

    together: dict[tuple[str, str], list[int]] = {}
    for i, (user, domain) in enumerate(zip(asked["user"].to_pylist(), asked["domain"].to_pylist(), strict=True)):
        together.setdefault((user, domain), []).append(i)
    items = asked["item"].to_pylist()
    answers: list[pa.Table] = []
    for (user, domain), places in together.items():
        given = {name: [values[i] for i in places] for name, values in context.items()}
        request = Request(user=user, domain=domain, items=[items[i] for i in places], context=given, at=at)
        answers.append(ranker.features(request)[0])
    order: np.ndarray[Any, Any] = np.argsort(np.concatenate([np.array(places) for places in together.values()]))
    return pa.concat_tables(answers).take(pa.array(order))
