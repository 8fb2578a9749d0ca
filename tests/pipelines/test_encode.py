"""What the encoder learns from the training rows."""

from __future__ import annotations

import logging
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest
import torch
from trained_variant import DOMAINS, SCHEMA, frame, variant

from multidomain import schema
from multidomain.batch import Batch
from multidomain.encoder import Encoder
from multidomain.features.views import MISSING
from multidomain.io import ParquetTable
from multidomain.packaging.scorer import Scorer
from multidomain.pipelines.encode.nodes import fit_encoder
from multidomain.schema import Variant


def fitted(folder: Path, rows: pa.Table, chosen: Variant | None = None) -> Encoder:
    table, domains = (ParquetTable(filepath=str(folder / f"{name}.parquet")) for name in ("frame", "domains"))
    table.save(rows)
    domains.save(pa.table({"domain_id": pa.array([0, 1, 2], pa.int32()), "domain": list(DOMAINS)}))
    (folder / "encoder").mkdir()
    fit_encoder(chosen or variant(folder), table.load(), domains.load())(folder / "encoder")
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


def hashing(folder: Path, buckets: int) -> Variant:
    """The tiny log, its items, codes and users hashed."""
    text = SCHEMA
    for feature in ("user_id: {", "item_id: {owner", "codes: {"):
        assert text.count(feature) == 1
        text = text.replace(feature, feature.replace("{", f"{{hash: {buckets}, "))
    (folder / "hashed.yml").write_text(text, encoding="utf-8")
    return schema.parse(folder / "hashed.yml").variant()


class Seen(torch.nn.Module):
    """A model that keeps what it was asked."""

    def forward(self, batch: Batch) -> torch.Tensor:
        self.batch = batch
        return torch.zeros(len(batch))


def test_a_hashed_feature_shares_its_buckets_with_the_history_and_is_served_the_ids_of_training(tmp_path):
    rows = frame(300)
    encoder = fitted(tmp_path, rows, hashing(tmp_path, 1000))
    assert set(encoder.hashed) == {"user_id", "item_id", "codes"}
    assert {"user_id", "item_id", "codes"}.isdisjoint(encoder.vocabularies)
    assert encoder.inputs.vocabularies["item_id"] == 1002
    assert encoder.inputs.history["positives_item_id"] == "item_id"
    trained = encoder.rows(rows)
    asked = rows.to_pandas()
    seen = Seen()
    Scorer(encoder=encoder, model=seen).predict(asked)
    assert seen.batch.categorical.tolist() == trained["categorical"].tolist()
    assert seen.batch.bags["codes"].tolist() == trained["bag_codes"].tolist()
    histories = encoder.histories("positives_item_id", rows.column("positives_item_id"))
    assert seen.batch.history["positives_item_id"].tolist() == histories.tolist()
    item = encoder.inputs.categorical.index("item_id")
    ids = dict(zip(rows["item_id"].to_pylist(), trained["categorical"][:, item].tolist(), strict=True))
    newest = [
        (past[-1], row[-1]) for past, row in zip(rows["positives_item_id"].to_pylist(), histories, strict=True) if past
    ]
    assert newest
    assert all(ids[value] == place for value, place in newest if value in ids)


def test_a_hashed_feature_gives_a_value_that_training_never_saw_a_bucket_too(tmp_path):
    encoder = fitted(tmp_path, frame(300), hashing(tmp_path, 1000))
    item = encoder.inputs.categorical.index("item_id")
    rows = frame(2)
    rows = rows.set_column(rows.column_names.index("item_id"), "item_id", pa.array(["never seen", None]))
    known, null = encoder.rows(rows)["categorical"][:, item].tolist()
    assert 2 <= known < 1002
    assert null == 1


@pytest.mark.parametrize(("buckets", "level"), [(100_000, logging.INFO), (8, logging.WARNING)])
def test_the_share_of_values_that_found_their_bucket_taken_is_told(tmp_path, caplog, buckets, level):
    caplog.set_level(logging.INFO)
    fitted(tmp_path, frame(300), hashing(tmp_path, buckets))
    record = next(r for r in caplog.records if r.message.startswith("vocabulary item_id: 30 values of training in"))
    assert record.levelno == level
    assert ("More buckets (features.item_id.hash)" in record.message) == (level == logging.WARNING)
