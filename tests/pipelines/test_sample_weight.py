"""A column of weights, from the schema to the training rows."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
import trained_variant

from multidomain import schema
from multidomain.errors import SchemaError
from multidomain.io import Folder, connection
from multidomain.layout import layout
from multidomain.pipelines.encode.nodes import encode
from multidomain.pipelines.partition.nodes import assign
from multidomain.pipelines.train.nodes import train
from multidomain.tensors import EncodedSplit

if TYPE_CHECKING:
    from trained_variant import Tiny

pytest_plugins = ["trained_variant"]
LOG = """
source: table
files: {log: log.csv}
roles: {user: who, item: what, timestamp: at, weight: WEIGHT}
labels: {click: clicked}
domains: {page: {column: page, minimum: 1}}
splits: {time: {}}
features: {who: {}, what: {}, place: {type: int}, age: {owner: user, type: int}, price: {kind: numerical, type: float}}
"""


def described(folder: Path, weight: str) -> schema.Schema:
    path = folder / "log.yml"
    path.write_text(LOG.replace("WEIGHT", weight), encoding="utf-8")
    return schema.parse(path)


def test_a_column_of_weights_is_read_as_numbers_and_is_no_input(tmp_path: Path) -> None:
    read = described(tmp_path, "dwell")
    assert layout(read).impressions["dwell"].type == "float64"
    assert "dwell" not in {feature.name for feature in read.variant().features}
    assert layout(described(tmp_path, "price")).impressions["price"].type == "float64"
    assert layout(described(tmp_path, "place")).impressions["place"].type == "int64"


def test_a_weight_that_is_no_number_of_the_impression_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SchemaError, match=r"roles\.weight: a weight is a number .* roles\.user reads column 'who'"):
        layout(described(tmp_path, "who"))
    with pytest.raises(SchemaError, match=r"features\.age reads column 'age' as whole numbers of another table"):
        layout(described(tmp_path, "age"))


def test_each_impression_keeps_its_weight_through_the_partition(tmp_path: Path) -> None:
    variant = described(tmp_path, "dwell").variant()
    impressions = pd.DataFrame(
        {
            "impression_id": range(40),
            "who": [f"u{i % 4}" for i in range(40)],
            "what": [f"i{i % 7}" for i in range(40)],
            "at": [dt.datetime(2024, 1, 1) + dt.timedelta(minutes=i) for i in range(40)],
            "page": ["home", "search"] * 20,
            "clicked": [i // 2 % 2 for i in range(40)],
            "dwell": [None if i == 3 else i / 10 for i in range(40)],
        }
    )
    con = connection()
    tables = [
        con.create_table("weighted", impressions, overwrite=True),
        con.create_table("weighted_users", pd.DataFrame({"who": ["u0", "u1", "u2", "u3"]}), overwrite=True),
        con.create_table("weighted_items", pd.DataFrame({"what": [f"i{i}" for i in range(7)]}), overwrite=True),
    ]
    rows = assign(variant, *tables).to_pandas().set_index("impression_id").sort_index()
    assert rows["sample_weight"].dtype == np.float64
    assert np.isnan(rows["sample_weight"][3])
    assert rows["sample_weight"].drop(3).tolist() == [i / 10 for i in range(40) if i != 3]


def test_weights_are_encoded_beside_their_rows_and_training_uses_them(tiny: Tiny, tmp_path: Path) -> None:
    frame = tiny.training_frame.load()
    frame = frame.mutate(sample_weight=(frame.impression_id % 7).cast("float64"))
    encoded = Folder(filepath=str(tmp_path / "encoded"))
    encoded.save(encode(tiny.variant, tiny.encoder, frame))
    split = EncodedSplit(encoded.load(), "train")
    ids = pd.read_parquet(encoded.load() / "train/rows.parquet")["impression_id"]
    assert split.weight is not None
    assert split.weight.tolist() == (ids % 7).tolist()
    assert EncodedSplit(tiny.encoded, "train").weight is None

    def scores(place: str, **settings: object) -> np.ndarray:
        config = {**trained_variant.TRAINING, **settings}
        model = trained_variant.MODELS["dnn"]
        write, _ = train(encoded.load(), tmp_path / place / "checkpoints", "dnn", model, config, 1, "cpu", False)
        write(tmp_path / place)
        return np.frombuffer((tmp_path / place / "weights.safetensors").read_bytes(), np.uint8)

    plain, weighted = scores("plain"), scores("weighted", sample_weight=True)
    assert not np.array_equal(plain, weighted)
    assert np.array_equal(weighted, scores("again", sample_weight=True))
