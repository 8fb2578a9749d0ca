"""Offline and online are held to each other; what is planted between them is found."""

from __future__ import annotations

import pyarrow as pa
import pytest
from small_ranker import SmallLog

from multidomain.features.materialize import materialize
from multidomain.io import connection
from multidomain.serving import parity


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """The small log, registered with Feast, and an untrained model over it."""
    folder = tmp_path_factory.mktemp("parity")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MULTIDOMAIN_DATA", str(folder / "data"))
        yield SmallLog(folder)


def measured(small: SmallLog) -> parity.Parity:
    frame = connection().read_parquet(str(small.frame))
    return parity.measure(small.variant, frame, small.scorer, moments=4, rows=60)


def test_every_feature_and_score_is_the_same_at_every_moment(small):
    materialize(small.variant)  # what the variant's own store has does not matter
    found = measured(small)
    assert len(found.moments) == 4
    table = found.features.set_index("feature")
    assert set(table.index) == set(small.scorer.columns)
    assert (table["equal"] == found.rows).all(), table[table.equal < found.rows].to_string()
    assert (table["example"] == "").all()
    assert found.score_difference == 0.0
    assert found.rows > 100


def test_nothing_of_the_variants_own_stores_is_changed(small):
    registry = small.folder / "data/04_feature/registry.db"
    online = small.folder / "data/04_feature/online_store.db"
    before = registry.read_bytes(), online.read_bytes()
    measured(small)
    assert (registry.read_bytes(), online.read_bytes()) == before


def test_a_feature_that_is_something_else_online_is_named_with_an_example(small, monkeypatch):
    read = parity.Ranker._read

    def skewed(self, distinct, stored):
        values, absent = read(self, distinct, stored)
        items, users = values["item",], values["user",]
        items["year"] = [year or 0 for year in items["year"]]  # another default
        users["user_rate"] = [rate and rate + 1e-9 for rate in users["user_rate"]]
        return values, absent

    monkeypatch.setattr(parity.Ranker, "_read", skewed)
    found = measured(small).features.set_index("feature")
    assert found.loc["year", "missing"] > 0
    assert "offline None, online 0" in found.loc["year", "example"]
    assert found.loc["user_rate", "differing"] > 0
    others = found.drop(index=["year", "user_rate"])
    assert (others["equal"] == others["rows"]).all()


def test_columns_are_compared_value_by_value():
    lists = pa.list_(pa.float64())
    nan = float("nan")
    offline = pa.table({"a": [1, None, 3, None], "b": pa.array([[1.0], [nan], [], None], lists)})
    online = pa.table({"a": [1, None, 4, 5], "b": pa.array([[1.0], [nan], None, []], lists)})
    found = parity.compare(offline, online, [7, 8, 9, 10]).set_index("feature")
    assert found.loc["a"].to_dict() == {
        "rows": 4, "equal": 2, "differing": 1, "missing": 1, "example": "impression 9: offline 3, online 4",
    }  # fmt: skip
    assert found.loc["b"].to_dict() == {
        "rows": 4, "equal": 2, "differing": 0, "missing": 2, "example": "impression 9: offline [], online None",
    }  # fmt: skip
