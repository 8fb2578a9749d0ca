"""Fit the encoder on the training rows alone, then write every split as memory-mapped tensors."""

from __future__ import annotations

import functools
import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ...features.views import MISSING
from ...schema import SPLITS, WEIGHT, Feature, Variant
from ...window import Window

if TYPE_CHECKING:
    import ibis.expr.types as ir
    import numpy as np
    import pyarrow as pa

    from ...encoder import Encoder, Field
    from ...hashing import Hashed

logger = logging.getLogger(__name__)
CHUNK = 131_072  # rows encoded at a time
MANY_COLLISIONS = 0.1  # share of values whose bucket was taken from which on it is a warning
Writer = Callable[[Path], None]


def fit_encoder(variant: Variant, training_frame: ir.Table, domain_table: ir.Table) -> Writer:
    """Vocabularies (minimum count), bucket edges and moments of the training split, as a folder."""
    from ...encoder import Encoder

    train = training_frame.filter(training_frame.split == "train")
    fields = tuple(_fit_field(feature, train) for feature in variant.features)
    vocabularies = {
        feature.name: _vocabulary(train, feature.name, feature.minimum_count, lists=feature.kind == "sequence")
        for feature in variant.features
        if feature.kind != "numerical" and feature.hash is None
    }
    hashed = {feature.name: _hashed(train, feature, feature.name) for feature in variant.features if feature.hash}
    history = {h.feature(source): candidate for h in variant.histories for source, candidate in h.fields}
    for name, candidate in history.items():  # the candidate field may be no input: it is the domain, or left out
        if candidate in vocabularies or candidate in hashed:
            continue
        feature = variant.schema.feature(candidate)
        if feature.hash:
            hashed[candidate] = _hashed(train, feature, name, lists=True)
        else:
            vocabularies[candidate] = _vocabulary(train, name, feature.minimum_count, lists=True)
    encoder = Encoder(
        fields=fields,
        vocabularies=vocabularies,
        domains=tuple(domain_table.order_by("domain_id").to_pandas().domain),
        history=history,
        history_length=max((h.length for h in variant.histories), default=0),
        hashed=hashed,
    )
    for name, values in vocabularies.items():
        logger.info("vocabulary %s: %d values", name, len(values))
    return encoder.save


def encode(
    variant: Variant, encoder_folder: Path, training_frame: ir.Table, window: Mapping[str, Any] | None = None
) -> Writer:
    """Every split as tensors, see ``multidomain.tensors`` for the files; with days in ``window`` their rows alone."""
    examples = Window.read(window).examples(training_frame)

    def write(folder: Path) -> None:
        from ...encoder import Encoder

        encoder = Encoder.load(encoder_folder)
        inputs = json.dumps(encoder.inputs.to_dict(), indent=1)
        (folder / "inputs.json").write_text(inputs, encoding="utf-8")
        (folder / "domains.json").write_text(json.dumps(list(encoder.domains)), encoding="utf-8")
        _write_splits(variant, encoder, examples, folder)

    return write


def _fit_field(feature: Feature, train: ir.Table) -> Field:
    from ...encoder import Field

    common: dict[str, Any] = {
        "name": feature.name,
        "value_type": feature.value_type,
        "owner": feature.owner,
        "distribution": feature.distribution,
    }
    if feature.kind == "sequence":
        return Field(kind="bag", length=feature.length, **common)
    if feature.kind == "categorical":
        return Field(kind="categorical", **common)
    column = train[feature.name].cast("float64")
    if feature.transform == "bucket":
        shares = [i / feature.buckets for i in range(1, feature.buckets)]
        edges = train.aggregate(edges=column.quantile(shares)).to_pyarrow()["edges"][0].as_py() or []
        return Field(kind="bucket", boundaries=tuple(sorted({float(e) for e in edges if e is not None})), **common)
    moments = train.aggregate(mean=column.mean(), deviation=column.std(how="pop")).to_pandas().iloc[0].fillna(0)
    return Field(kind="value", mean=float(moments["mean"]), scale=float(moments.deviation) or 1.0, **common)


def _vocabulary(train: ir.Table, column: str, minimum: int, *, lists: bool) -> pa.Array:
    """The values seen at least ``minimum`` times in training, most frequent first, ties in order of value."""
    import ibis

    values = _values(train, column, lists=lists)
    counted = values.group_by("value").aggregate(n=ibis._.count())
    kept = counted.filter(counted.n >= minimum).order_by(counted.n.desc(), counted.value)
    return kept.select("value").to_pyarrow().column("value").combine_chunks()


def _values(train: ir.Table, column: str, *, lists: bool) -> ir.Table:
    """The values of a column, less those that stand for null, as the column ``value``."""
    values = train.select(value=train[column].unnest() if lists else train[column])
    values = values.filter(values.value.notnull())
    if lists:
        kind = "int" if values.value.type().is_integer() else "float" if values.value.type().is_floating() else "string"
        values = values.filter(values.value != MISSING[kind])
    return values


def _hashed(train: ir.Table, feature: Feature, column: str, *, lists: bool = False) -> Hashed:
    """The buckets of a hashed feature; says how many values of training share one."""
    import numpy as np

    from ...hashing import Hashed, expected_collisions

    assert feature.hash is not None
    kind: Literal["string", "int"] = "int" if feature.value_type == "int" else "string"
    one = Hashed(buckets=feature.hash, value_type=kind, missing=MISSING[kind])
    values = _values(train, column, lists=lists or feature.kind == "sequence").distinct().to_pyarrow().column("value")
    taken = len(np.unique(one.places(values.cast(one.type))))
    share = 1 - taken / max(len(values), 1) if len(values) else 0.0
    level = logging.WARNING if share > MANY_COLLISIONS else logging.INFO
    advice = f" More buckets (features.{feature.name}.hash) keep them apart." if share > MANY_COLLISIONS else ""
    logger.log(
        level,
        "vocabulary %s: %s values of training in %s buckets; %.1f %% found theirs taken (%.1f %% expected).%s",
        feature.name,
        f"{len(values):,}",
        f"{one.buckets:,}",
        100 * share,
        100 * expected_collisions(len(values), one.buckets),
        advice,
    )
    return one


def _write_splits(variant: Variant, encoder: Encoder, frame: ir.Table, folder: Path) -> None:
    from ...parallel import in_order
    from ...progress import progress
    from ...tensor_writer import TensorWriter

    counts = frame.group_by("split").aggregate(n=frame.count()).to_pandas().set_index("split").n
    states = _States(variant, frame)
    rows_of = {split: int(counts.get(split, 0)) for split in SPLITS}
    with (
        TensorWriter(folder, encoder.inputs, rows=rows_of, states=states.size) as out,
        progress(total=sum(rows_of.values()), what="encode") as bar,
    ):
        encoded = functools.partial(_encoded, encoder, states)
        for split, rows, arrays, state in in_order(encoded, _by_split(_chunks(variant, encoder, frame))):
            weight = _numpy(rows, WEIGHT) if WEIGHT in rows.column_names else None
            out.write(split, arrays, label=_numpy(rows, "label"), state=state, rows=rows, weight=weight)
            _write_states(encoder, rows, state, out)
            bar.update(len(rows))


Piece = tuple[str, "pa.Table", dict[str, Any], "np.ndarray | None"]


def _encoded(encoder: Encoder, states: _States, piece: tuple[str, pa.Table]) -> Piece:
    """The rows of a split, their arrays, and each row's history."""
    split, rows = piece
    return split, rows, encoder.rows(rows), states.rows(rows)


def _chunks(variant: Variant, encoder: Encoder, frame: ir.Table) -> Iterator[pa.Table]:
    """The frame in order of impressions, a bounded number of rows at a time."""
    import pyarrow as pa

    keys = [h.feature("state") for h in variant.histories]
    truths = [name for name in variant.label.truths if name in frame.columns]
    others = [*truths, *([WEIGHT] if WEIGHT in frame.columns else [])]
    needed = dict.fromkeys(["impression_id", "user", "group", "label", "split", *others, *encoder.columns, *keys])
    for batch in frame.select(*needed).to_pyarrow_batches(chunk_size=CHUNK):
        yield pa.Table.from_batches([batch])


def _by_split(chunks: Iterable[pa.Table]) -> Iterator[tuple[str, pa.Table]]:
    import pyarrow.compute as pc

    for chunk in chunks:
        for split in SPLITS:
            rows = chunk.filter(pc.equal(chunk.column("split"), split))
            if len(rows):
                yield split, rows


def _numpy(rows: pa.Table, column: str) -> np.ndarray:
    import numpy as np

    return np.asarray(rows.column(column).to_numpy())


class _States:
    """The distinct user states (user, number of positives so far) and their row numbers; row 0 is the empty history."""

    def __init__(self, variant: Variant, frame: ir.Table) -> None:
        import numpy as np

        self.names = [h.feature("state") for h in variant.histories]
        self.keys = np.zeros(0, np.int64)
        if self.names:
            import pyarrow as pa

            self._users = frame.select("user").distinct().order_by("user").to_pyarrow().column("user").combine_chunks()
            parts = [
                self._key(pa.Table.from_batches([batch]))
                for batch in frame.select("user", *self.names).to_pyarrow_batches(chunk_size=CHUNK)
            ]
            self.keys = np.unique(np.concatenate(parts)) if parts else self.keys
        self.size = len(self.keys) + 1

    def _key(self, rows: pa.Table) -> np.ndarray:
        import numpy as np
        import pyarrow.compute as pc

        user = pc.index_in(rows.column("user"), value_set=self._users).to_numpy().astype(np.int64)
        key: np.ndarray = user
        for name in self.names:
            key = (key << 24) + pc.fill_null(rows.column(name), 0).to_numpy().astype(np.int64)
        return key

    def rows(self, rows: pa.Table) -> np.ndarray | None:
        """The state's row of each impression (N,), or None without histories."""
        import numpy as np

        if not self.names:
            return None
        return (np.searchsorted(self.keys, self._key(rows)) + 1).astype(np.int32)


def _write_states(encoder: Encoder, rows: pa.Table, state: np.ndarray | None, out: Any) -> None:
    import numpy as np

    if state is None:
        return
    distinct, first = np.unique(state, return_index=True)
    lists = rows.take(first)
    for name in encoder.history:
        out.write_states(name, distinct, encoder.histories(name, lists.column(name)))
