from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from multidomain.hashing import Hashed, expected_collisions

TEXTS = Hashed(buckets=1000, value_type="string", missing="")
NUMBERS = Hashed(buckets=1000, value_type="int", missing=-(2**63))


def test_a_value_has_the_bucket_it_has_always_had():
    """Packages in service were trained on these: another result is another hash, whatever changed it."""
    assert TEXTS.places(pa.array(["u1", "u2", "Ärger", "☂", "u1"])).tolist() == [869, 421, 179, 21, 869]
    assert NUMBERS.places(pa.array([0, 1, -1, 2**40])).tolist() == [0, 789, 67, 568]


def test_null_and_what_stands_for_it_in_a_list_have_none():
    assert TEXTS.places(pa.array([None, "", "u1"])).tolist()[:2] == [-1, -1]
    assert NUMBERS.places(pa.array([None, -(2**63)], pa.int64())).tolist() == [-1, -1]
    assert TEXTS.places(pa.array([], pa.string())).tolist() == []
    assert TEXTS.places(pa.array([None, None], pa.string())).tolist() == [-1, -1]


@settings(deadline=None)
@given(values=st.lists(st.text(max_size=5) | st.none(), max_size=30), cut=st.integers(0, 30))
def test_a_bucket_depends_on_the_value_alone(values, cut):
    whole = TEXTS.places(pa.array(values, pa.string()))
    parts = pa.chunked_array([pa.array(values[:cut], pa.string()), pa.array(values[cut:], pa.string())])
    assert TEXTS.places(parts).tolist() == whole.tolist()
    assert [int(TEXTS.places(pa.array([value], pa.string()))[0]) for value in values] == whole.tolist()
    assert ((whole >= -1) & (whole < 1000)).all()


@pytest.mark.parametrize(("values", "buckets"), [(100, 1000), (1000, 1000), (5000, 1000), (20_000, 100_000)])
def test_as_many_collide_as_the_formula_says(values, buckets):
    by_hand = 1 - buckets / values * (1 - (1 - 1 / buckets) ** values)
    assert expected_collisions(values, buckets) == pytest.approx(by_hand, abs=1e-9)
    for one, given_values in (
        (Hashed(buckets=buckets, value_type="string"), [f"user {n}" for n in range(values)]),
        (Hashed(buckets=buckets, value_type="int"), list(range(values))),
    ):
        taken = len(np.unique(one.places(pa.array(given_values))))
        assert 1 - taken / values == pytest.approx(by_hand, abs=4 * (values**-0.5) * (by_hand * (1 - by_hand)) ** 0.5)


def test_no_value_collides_with_none_and_one_bucket_holds_all():
    assert expected_collisions(0, 10) == 0
    assert expected_collisions(1, 10) == pytest.approx(0)
    assert expected_collisions(4, 1) == 0.75
