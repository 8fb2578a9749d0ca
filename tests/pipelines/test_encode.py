"""What the encoder learns from the training rows."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from trained_variant import DOMAINS, frame, variant

from multidomain.encoder import Encoder
from multidomain.features.views import MISSING
from multidomain.io import ParquetTable
from multidomain.pipelines.encode.nodes import fit_encoder


def fitted(folder: Path, rows: pa.Table) -> Encoder:
    table, domains = (ParquetTable(filepath=str(folder / f"{name}.parquet")) for name in ("frame", "domains"))
    table.save(rows)
    domains.save(pa.table({"domain_id": pa.array([0, 1, 2], pa.int32()), "domain": list(DOMAINS)}))
    (folder / "encoder").mkdir()
    fit_encoder(variant(folder), table.load(), domains.load())(folder / "encoder")
    return Encoder.load(folder / "encoder")


def test_what_stands_for_a_null_in_a_list_is_in_no_vocabulary_and_encoded_as_unknown(tmp_path):
    rows = frame(300)
    texts = pa.array([["x", MISSING["string"]]] * len(rows), pa.list_(pa.string()))
    numbers = pa.array([[7, MISSING["int"]]] * len(rows), pa.list_(pa.int64()))
    for name, lists in (("tags", texts), ("codes", numbers)):
        rows = rows.set_column(rows.column_names.index(name), name, lists)
    encoder = fitted(tmp_path, rows)
    assert encoder.vocabularies["tags"].to_pylist() == ["x"]
    assert encoder.vocabularies["codes"].to_pylist() == [7]
    arrays = encoder.rows(rows.slice(0, 1))
    assert arrays["bag_tags"].tolist() == [[2, 1, 0]]
    assert arrays["bag_codes"].tolist() == [[2, 1]]


def test_a_vocabulary_holds_training_values_alone_most_frequent_first(tmp_path):
    rows = frame(300)
    encoder = fitted(tmp_path, rows)
    seen = rows.filter(pc.equal(rows["split"], "train"))["genre"].drop_null().value_counts().to_pylist()
    expected = [one["values"] for one in sorted(seen, key=lambda one: (-one["counts"], one["values"]))]
    assert encoder.vocabularies["genre"].to_pylist() == expected
