"""Drift between splits and between domains, against values computed by hand and row by row."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from multidomain.evaluation import drift, drift_report
from multidomain.evaluation.drift import AGAINST_OTHERS, AGAINST_TRAIN, chance, measure, psi
from multidomain.inputs import InputSchema
from multidomain.schema import SPLITS
from multidomain.tensor_writer import TensorWriter
from multidomain.tensors import EncodedSplit

ID, NUMBER, BAG, HISTORY = "item", "price", "tags", "past (length)"
FEATURES = (ID, NUMBER, BAG, HISTORY)
COUNTS = st.lists(st.integers(0, 50), min_size=3, max_size=3).filter(any)


def inputs(domains: int) -> InputSchema:
    return InputSchema(
        domains=domains,
        vocabularies={ID: 80, BAG: 60},
        categorical=(ID,),
        numerical=(NUMBER,),
        history={"past_item": ID},
        history_length=4,
        bags={BAG: BAG},
    )


def drawn(rng: np.random.Generator, rows: int, domains: int) -> dict[str, Any]:
    """Rows as the encoder writes them; bags are padded on the right."""
    bag = rng.integers(1, 60, (rows, 3))
    bag[np.arange(3) >= rng.integers(0, 4, (rows, 1))] = 0
    return {
        "categorical": (80 * rng.random((rows, 1)) ** 2).astype(int).clip(1),
        "numerical": rng.normal(size=(rows, 1)).round(1),
        "domain": rng.integers(0, domains + 1, rows),  # the last one is unknown
        "bag_tags": bag,
        "label": rng.integers(0, 2, rows),
        "state": rng.integers(0, 5, rows),
    }


def encoded(folder: Path, splits: dict[str, dict[str, Any]], domains: int = 3) -> Path:
    """The splits as files; state s has a history of s items."""
    folder.mkdir(parents=True)
    (folder / "inputs.json").write_text(json.dumps(inputs(domains).to_dict()))
    (folder / "domains.json").write_text(json.dumps([f"d{i}" for i in range(domains)]))
    rows = {split: len(arrays["label"]) for split, arrays in splits.items()}
    with TensorWriter(folder, inputs(domains), rows=rows, states=5) as out:
        for split, arrays in splits.items():
            if rows[split]:
                out.write(split, arrays, label=arrays["label"], state=arrays["state"])
        out.write_states("past_item", np.arange(5), np.where(np.arange(4) >= 4 - np.arange(5)[:, None], 7, 0))
    return folder


def three(seed: int, rows: int = 60, domains: int = 3) -> dict[str, dict[str, Any]]:
    rng = np.random.default_rng(seed)
    return {split: drawn(rng, rows // (number + 1), domains) for number, split in enumerate(SPLITS)}


def overall(table: pd.DataFrame, comparison: str = AGAINST_TRAIN["test"]) -> pd.Series:
    return table[(table.comparison == comparison) & table.domain.isna()].set_index("feature").psi


# --- the index ---------------------------------------------------------------------------------------------------


def test_the_index_is_that_computed_by_hand() -> None:
    expected = (0.5 - 0.4) * math.log(0.5 / 0.4) + (0.3 - 0.4) * math.log(0.3 / 0.4)
    assert psi(np.array([50, 30, 20]), np.array([80, 80, 40])) == pytest.approx(expected)
    assert expected == pytest.approx(0.05108, abs=1e-5)


def test_an_empty_value_counts_as_half_a_row_of_the_smaller_set() -> None:
    expected = (1 - 0.5) * math.log(1 / 0.5) + (0.5 - 0.005) * math.log(0.5 / 0.005)
    assert psi(np.array([100, 0]), np.array([500, 500])) == pytest.approx(expected)


def test_in_large_sets_no_share_counts_as_less_than_a_ten_thousandth() -> None:
    million = 1_000_000
    expected = (1 - 0.5) * math.log(1 / 0.5) + (0.5 - 0.0001) * math.log(0.5 / 0.0001)
    assert psi(np.array([million, 0]), np.array([million // 2] * 2)) == pytest.approx(expected)
    assert psi(np.array([million, 0]), np.array([million - 90, 90])) == pytest.approx(0, abs=1e-7)


@settings(max_examples=50, deadline=None)
@given(COUNTS, COUNTS)
def test_the_index_is_symmetric_and_never_negative(a: list[int], b: list[int]) -> None:
    assert psi(np.array(a), np.array(b)) == pytest.approx(psi(np.array(b), np.array(a)))
    assert psi(np.array(a), np.array(b)) >= 0


@settings(max_examples=50, deadline=None)
@given(COUNTS, st.integers(1, 1000))
def test_equal_distributions_do_not_differ_whatever_their_size(counts: list[int], times: int) -> None:
    assert psi(np.array(counts), times * np.array(counts)) == pytest.approx(0, abs=1e-12)


def test_without_rows_on_a_side_there_is_no_index() -> None:
    some, none = np.array([[1, 2], [3, 4]]), np.array([[0, 0], [3, 4]])
    for found in (psi(some, none), psi(none, some), chance(some, none)):
        assert np.isnan(found).tolist() == [True, False]


def test_the_bound_of_chance_is_that_of_the_chi_square_distribution() -> None:
    ten = np.full(2, 50)
    assert chance(ten, ten) == pytest.approx((1 / 100 + 1 / 100) * 3.8415, abs=1e-5)  # one degree of freedom
    assert chance(np.array([50, 50, 0]), np.array([50, 50, 0])) == chance(ten, ten)  # a value that nobody has
    assert chance(np.array([9, 0]), np.array([7, 0])) == 0


@pytest.mark.parametrize(("rows", "values"), [(300, 10), (5_000, 50)])
def test_samples_of_one_population_mostly_stay_below_the_bound_of_chance(rows: int, values: int) -> None:
    rng = np.random.default_rng(0)
    shares = rng.dirichlet(np.full(values, 5))
    a, b = rng.multinomial(rows, shares, 1000), rng.multinomial(8 * rows, shares, 1000)
    assert 0.9 < (psi(a, b) <= chance(a, b)).mean() < 0.98


# --- against a row-by-row computation ----------------------------------------------------------------------------


def one_by_one(splits: dict[str, dict[str, Any]]) -> dict[str, dict[str, Counter[tuple[int | None, int]]]]:
    """split -> feature -> how often (domain or None, value)."""
    train = splits["train"]
    as_kept = train["numerical"].astype(np.float32).astype(np.float64)  # a quantile may lie between two float32
    prices = np.unique(np.quantile(as_kept, np.arange(1, 20) / 20))
    lengths = np.unique([1, *np.quantile(train["state"], np.arange(1, 20) / 20)])
    counted: dict[str, dict[str, Counter[tuple[int | None, int]]]] = {}
    for split, rows in splits.items():
        found = counted[split] = {feature: Counter() for feature in FEATURES}
        for i, domain in enumerate(rows["domain"]):
            values = {
                ID: [min(int(rows["categorical"][i, 0]), 52)],
                NUMBER: [sum(bool(np.float32(rows["numerical"][i, 0]) >= cut) for cut in prices)],
                BAG: [min(int(tag), 52) for tag in rows["bag_tags"][i] if tag] or [0],
                HISTORY: [sum(bool(rows["state"][i] >= cut) for cut in lengths)],
            }
            for feature, those in values.items():
                for value in those:
                    found[feature][int(domain), value] += 1
                    found[feature][None, value] += 1
    return counted


def index(a: Counter[int], b: Counter[int]) -> float | None:
    rows_a, rows_b = sum(a.values()), sum(b.values())
    if not rows_a or not rows_b:
        return None
    floor = max(0.0001, 0.5 / min(rows_a, rows_b))
    total = 0.0
    for value in set(a) | set(b):
        share_a, share_b = max(a[value] / rows_a, floor), max(b[value] / rows_b, floor)
        total += (share_a - share_b) * math.log(share_a / share_b)
    return total


def expected(splits: dict[str, dict[str, Any]], domains: int) -> Iterator[tuple[tuple[str, Any, str], float | None]]:
    counted = one_by_one(splits)

    def of(split: str, feature: str, wanted: Any) -> Counter[int]:
        return Counter(
            {
                value: sum(
                    n for (domain, other), n in counted[split][feature].items() if other == value and wanted(domain)
                )
                for value in {value for _, value in counted[split][feature]}
            }
        )

    for feature in FEATURES:
        for number in (None, *range(domains)):
            name = None if number is None else f"d{number}"
            mine = {split: of(split, feature, lambda d, number=number: d == number) for split in SPLITS}
            for split, comparison in AGAINST_TRAIN.items():
                yield (comparison, name, feature), index(mine[split], mine["train"])
            if number is not None:
                others = of("train", feature, lambda d, number=number: d not in (None, number))
                yield (AGAINST_OTHERS, name, feature), index(mine["train"], others)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 10_000), rows=st.integers(12, 90), domains=st.integers(1, 4), chunk=st.integers(1, 100))
@example(seed=384, rows=52, domains=1, chunk=1)  # a cut half-way between two prices is a third one in float32
def test_every_number_equals_that_of_a_row_by_row_computation(
    tmp_path_factory: pytest.TempPathFactory, seed: int, rows: int, domains: int, chunk: int
) -> None:
    splits = three(seed, rows, domains)
    folder = encoded(tmp_path_factory.mktemp("drift") / "encoded", splits, domains)
    found = measure(folder, histories={"past": "past_item"}, chunk=chunk, shown=False)
    keys = zip(found.psi.comparison, found.psi.domain, found.psi.feature, strict=True)
    values = dict(zip(keys, found.psi.psi, strict=True))
    wanted = dict(expected(splits, domains))
    assert values.keys() == wanted.keys()
    for key, value in wanted.items():
        assert math.isnan(values[key]) if value is None else values[key] == pytest.approx(value), key
    for split, arrays in splits.items():
        for number, name in [(None, None), *((i, f"d{i}") for i in range(domains))]:
            mine = np.ones(len(arrays["label"]), bool) if number is None else arrays["domain"] == number
            of_name = found.labels.domain.isna() if name is None else found.labels.domain == name
            (line,) = found.labels[(found.labels.split == split) & of_name].itertuples()
            assert (line.rows, line.positives) == (mine.sum(), arrays["label"][mine].sum())
            assert line.rate == pytest.approx(arrays["label"][mine].mean()) if mine.any() else math.isnan(line.rate)


def test_the_number_of_rows_read_at_a_time_changes_nothing(tmp_path: Path) -> None:
    folder = encoded(tmp_path / "encoded", three(3, 200))
    whole = measure(folder, shown=False)
    for chunk in (1, 7, 60):
        parts = measure(folder, chunk=chunk, shown=False)
        pd.testing.assert_frame_equal(parts.psi, whole.psi)
        pd.testing.assert_frame_equal(parts.labels, whole.labels)


def test_values_beyond_the_fifty_most_frequent_are_one(tmp_path: Path) -> None:
    splits = three(4, 300)
    rare = splits["test"]["categorical"] >= 52
    assert rare.any()
    splits["test"]["categorical"] = np.where(rare, 52 + (splits["test"]["categorical"] - 40) % 28, 51)
    first = measure(encoded(tmp_path / "first", splits), shown=False).psi
    splits["test"]["categorical"] = np.where(rare, 79, 51)
    pd.testing.assert_frame_equal(measure(encoded(tmp_path / "second", splits), shown=False).psi, first)
    assert overall(first)[ID] > drift.SIGNIFICANT


def test_a_domain_without_rows_in_a_split_has_no_index_there(tmp_path: Path) -> None:
    splits = three(5)
    splits["test"]["domain"][:] = 0
    found = measure(encoded(tmp_path / "encoded", splits), shown=False)
    rows = found.psi[(found.psi.comparison == AGAINST_TRAIN["test"]) & (found.psi.feature == ID)].set_index("domain")
    assert rows.psi.isna().tolist() == [False, False, True, True]
    assert rows.rows_a.to_dict()["d1"] == 0
    drift_report.write(tmp_path, found, title="drift", facts={})
    kept = pd.read_parquet(tmp_path / "psi.parquet")
    pd.testing.assert_frame_equal(kept, found.psi)
    assert "–" in (tmp_path / "report.html").read_text()


def test_a_split_without_rows_has_no_index_at_all(tmp_path: Path) -> None:
    splits = {**three(6), "validation": drawn(np.random.default_rng(0), 0, 3)}
    found = measure(encoded(tmp_path / "encoded", splits), shown=False)
    assert overall(found.psi, AGAINST_TRAIN["validation"]).isna().all()
    assert overall(found.psi).notna().all()
    drift_report.write(tmp_path, found, title="drift", facts={})


def test_a_single_domain_has_no_others_to_differ_from(tmp_path: Path) -> None:
    splits = three(7, domains=1)
    for arrays in splits.values():
        arrays["domain"][:] = 0
    found = measure(encoded(tmp_path / "encoded", splits, domains=1), shown=False)
    assert found.psi[found.psi.comparison == AGAINST_OTHERS].psi.isna().all()
    per_domain = found.psi[(found.psi.comparison == AGAINST_TRAIN["test"]) & (found.psi.domain == "d0")]
    assert per_domain.psi.tolist() == overall(found.psi).tolist()
    drift_report.write(tmp_path, found, title="drift", facts={})


def test_planted_drift_is_found_and_nothing_else(tmp_path: Path) -> None:
    splits = three(8, 3_000)
    splits["test"]["numerical"] += 1
    found = measure(encoded(tmp_path / "encoded", splits), shown=False)
    assert list(found.shifted()) == [NUMBER]
    assert found.shifted(AGAINST_TRAIN["validation"]) == {}
    splits["train"]["state"] = np.where(splits["train"]["domain"] == 2, 0, splits["train"]["state"])
    found = measure(encoded(tmp_path / "domain", splits), histories={"past": "past_item"}, shown=False)
    others = found.psi[(found.psi.comparison == AGAINST_OTHERS) & (found.psi.psi > drift.SIGNIFICANT)]
    assert set(others.feature) == {HISTORY}
    assert others.loc[others.psi.idxmax(), "domain"] == "d2"  # the others differ from it, among their others


def test_a_large_index_of_few_rows_is_no_shift(tmp_path: Path) -> None:
    found = measure(encoded(tmp_path / "encoded", three(9, 60)), shown=False)
    assert overall(found.psi)[ID] > drift.SIGNIFICANT  # 20 rows against 60, 53 values
    assert ID not in found.shifted()


def test_quantiles_of_many_rows_come_from_blocks_spread_over_all_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drift, "BLOCK", 4)
    monkeypatch.setattr(drift, "BLOCKS", 3)
    assert drift._spread(12).tolist() == list(range(12))
    assert drift._spread(100).tolist() == [0, 1, 2, 3, 48, 49, 50, 51, 96, 97, 98, 99]


# --- the page ----------------------------------------------------------------------------------------------------


def test_beyond_fifty_domains_the_largest_are_shown(tmp_path: Path) -> None:
    splits = three(10, 400, domains=60)
    for arrays in splits.values():
        arrays["domain"] = np.sort(arrays["domain"]) % 60
    splits["train"]["domain"][splits["train"]["domain"] < 8] = 59
    found = measure(encoded(tmp_path / "encoded", splits, domains=60), shown=False)
    shown = drift_report._largest(found)
    sizes = found.labels.dropna(subset="domain").groupby("domain").rows.sum()
    assert len(shown) == 50
    assert sizes[shown].min() >= sizes.drop(shown).max()
    drift_report.write(tmp_path, found, title="drift", facts={"data set": "a <log>"})
    page = (tmp_path / "report.html").read_text()
    assert "10 smaller or empty domains are in labels.parquet" in page
    assert "a &lt;log&gt;" in page
    assert page.count("data:image/png;base64,") == 2
    assert {path.name for path in tmp_path.iterdir() if path.is_file()} == {
        "psi.parquet", "labels.parquet", "splits.png", "domains.png", "report.html",
    }  # fmt: skip


def test_the_arrays_of_a_split_are_named_as_their_files(tmp_path: Path) -> None:
    arrays = EncodedSplit(encoded(tmp_path / "encoded", three(11)), "train").arrays()
    there = {path.stem for path in (tmp_path / "encoded/train").glob("*.npy")}
    assert set(arrays) == there | {"states/past_item"}
