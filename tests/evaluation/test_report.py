from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as reference

from multidomain.errors import DataError
from multidomain.evaluation import plots, report

KEYS = {"auc", "gauc", "gauc_coverage", "pcoc", "logloss", "ece", "rows"}


def scored(domains: int, rows: int = 4000, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    chance = rng.beta(1, 3, rows)
    return pd.DataFrame(
        {
            "domain": [f"d{number}" for number in rng.integers(0, domains, rows)],
            "label": (rng.random(rows) < chance).astype(np.int8),
            "score": chance,
            "group": rng.integers(0, 50, rows),
        }
    )


def measured(frame: pd.DataFrame, domains: list[str]) -> dict:
    return report.evaluate(*(frame[c].to_numpy() for c in ("label", "score", "group", "domain")), domains)


def history(epochs: int = 3) -> pd.DataFrame:
    steps = np.arange(1, epochs + 1)
    return pd.DataFrame(
        {"epoch": steps, "train_loss": 1 / steps, "validation_loss": 1 / steps, "validation_auc": 1 - 0.5 / steps}
    )


def test_metrics_of_two_domains_are_those_computed_by_hand() -> None:
    label = np.array([1, 0, 1, 0, 0])
    score = np.array([0.8, 0.4, 0.2, 0.6, 0.3])
    domain = np.array(["b", "a", "a", "b", "a"])
    found = report.evaluate(label, score, np.zeros(5), domain, ["a", "b"])
    assert list(found) == ["overall", "domains"]
    assert list(found["domains"]) == ["a", "b"]
    assert found["overall"]["auc"] == pytest.approx(3 / 6)  # .8 beats three, .2 beats none
    assert found["overall"]["pcoc"] == pytest.approx((2.3 / 5) / (2 / 5))
    assert found["domains"]["a"]["auc"] == 0
    assert found["domains"]["b"]["auc"] == 1
    assert found["domains"]["a"]["pcoc"] == pytest.approx(0.9)
    assert found["domains"]["b"]["logloss"] == pytest.approx(-(np.log(0.8) + np.log(0.4)) / 2)
    assert [values["rows"] for values in found["domains"].values()] == [3, 2]
    assert all(set(values) == KEYS for values in [found["overall"], *found["domains"].values()])


def test_what_is_undefined_is_null_in_json() -> None:
    label, score = np.array([0, 0, 1]), np.array([0.1, 0.2, 0.3])
    found = report.evaluate(
        label, score, np.arange(3), np.array(["quiet", "quiet", "loud"]), ["quiet", "loud", "empty"]
    )
    read = json.loads(json.dumps(found, allow_nan=False))
    assert read["domains"]["quiet"]["auc"] is None
    assert read["domains"]["quiet"]["pcoc"] is None
    assert read["domains"]["quiet"]["logloss"] > 0
    assert read["domains"]["loud"]["auc"] is None
    assert read["domains"]["loud"]["pcoc"] == pytest.approx(0.3)
    assert read["domains"]["empty"] == dict.fromkeys(KEYS - {"rows"}, None) | {"rows": 0}
    assert read["overall"]["gauc"] is None
    assert read["overall"]["gauc_coverage"] == 0


def test_rows_of_a_domain_nobody_named_are_not_lost() -> None:
    found = report.evaluate(np.array([0, 1]), np.array([0.1, 0.9]), np.zeros(2), np.array(["a", "unknown"]), ["a"])
    assert [values["rows"] for values in found["domains"].values()] == [1, 1]
    assert list(found["domains"]) == ["a", "unknown"]


def test_metrics_do_not_depend_on_the_order_of_rows() -> None:
    frame = scored(4)
    names = [f"d{n}" for n in range(4)]
    shuffled = measured(frame.sample(frac=1, random_state=1), names)
    for name, values in measured(frame, names)["domains"].items():
        assert shuffled["domains"][name] == pytest.approx(values)


def test_a_split_of_one_class_is_refused_with_split_class_rows_and_remedy() -> None:
    with pytest.raises(DataError, match=r"test split of log/v holds one class only: all 3 rows have label 1.*splits"):
        report.require_both_classes(np.ones(3), split="test", name="log/v")
    with pytest.raises(DataError, match="label 0"):
        report.require_both_classes(np.zeros(3), split="test", name="log/v")
    with pytest.raises(DataError, match="no rows"):
        report.require_both_classes(np.zeros(0), split="test", name="log/v")
    report.require_both_classes(np.array([0, 1]), split="test", name="log/v")


def test_summary_shows_every_domain_and_the_whole() -> None:
    from rich.console import Console

    console = Console(width=120, record=True)
    console.print(report.summary(measured(scored(3), ["d0", "d1", "d2"]), title="star"))
    text = console.export_text()
    assert all(name in text for name in ("star", "d0", "d1", "d2", "overall", "AUC", "GAUC", "PCOC", "4,000"))


def test_beyond_fifty_domains_the_largest_are_shown() -> None:
    metrics = {"overall": {}, "domains": {f"d{n}": {"rows": n} for n in range(80)}}
    assert report.largest(metrics) == [f"d{n}" for n in range(30, 80)]
    assert report.largest(metrics, 2) == ["d78", "d79"]


@pytest.mark.parametrize("domains", [1, 3, 60])
def test_pictures_and_page_are_written_and_need_nothing_else(tmp_path: Path, domains: int) -> None:
    frame = scored(domains)
    metrics = measured(frame, [f"d{n}" for n in range(domains)])
    facts = {"data set": "<log> & more"}
    plots.write(tmp_path, predictions=frame, metrics=metrics, history=history(), title="star on log", facts=facts)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "calibration.png",
        "history.png",
        "pcoc.png",
        "report.html",
        "roc.png",
        "scores.png",
    ]
    for picture in tmp_path.glob("*.png"):
        assert picture.read_bytes().startswith(b"\x89PNG")
    page = (tmp_path / "report.html").read_text("utf-8")
    assert page.count("data:image/png;base64,") == 5
    assert "http" not in page
    assert "&lt;log&gt; &amp; more" in page
    assert page.count("<tr") == 2 + min(domains, 50)


def test_domains_without_positives_or_with_one_class_do_not_stop_the_pictures(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {"domain": ["a", "a", "b", "c", "c"], "label": [0, 0, 1, 0, 1], "score": [0.1, 0.2, 0.9, 0.5, 0.5]}
    )
    metrics = measured(frame.assign(group=0), ["a", "b", "c", "empty"])
    plots.write(tmp_path, predictions=frame, metrics=metrics, history=history(1), title="t", facts={})
    assert (tmp_path / "report.html").stat().st_size > 10_000


def test_a_history_without_auc_is_drawn(tmp_path: Path) -> None:
    plots.training(history().assign(validation_auc=np.nan)).savefig(tmp_path / "history.png")


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 5)), min_size=1, max_size=40))
def test_roc_curve_is_that_of_scikit_learn_with_ties(rows: list[tuple[bool, int]]) -> None:
    label = np.array([int(y) for y, _ in rows] + [0, 1])
    score = np.array([s / 5 for _, s in rows] + [0.5, 0.5])
    false, true = plots.roc_curve(label, score)
    assert np.trapezoid(true, false) == pytest.approx(reference.roc_auc_score(label, score))
    wanted_false, wanted_true, _ = reference.roc_curve(label, score, drop_intermediate=False)
    np.testing.assert_allclose(false, wanted_false)
    np.testing.assert_allclose(true, wanted_true)


def test_a_thinned_roc_curve_keeps_its_ends_and_its_area() -> None:
    frame = scored(1, rows=20_000)
    false, true = plots.roc_curve(frame["label"].to_numpy(), frame["score"].to_numpy())
    assert len(false) <= plots.POINTS
    assert (false[0], true[0], false[-1], true[-1]) == (0, 0, 1, 1)
    area = reference.roc_auc_score(frame["label"], frame["score"])
    assert np.trapezoid(true, false) == pytest.approx(area, abs=1e-3)


def test_calibration_bins_hold_equally_many_rows() -> None:
    label = np.array([0, 1, 0, 0, 1, 1])
    score = np.array([0.3, 0.9, 0.1, 0.2, 0.7, 0.4])
    mean, rate = plots.calibration_curve(label, score, bins=3)
    np.testing.assert_allclose(mean, [0.15, 0.35, 0.8])
    np.testing.assert_allclose(rate, [0, 0.5, 1])
    assert len(plots.calibration_curve(label[:1], score[:1])[0]) == 1


# --- a log that knows its truth --------------------------------------------------------------------------------------


def simulated(rows: int = 4000) -> dict[str, np.ndarray]:
    """Half a's rows and half b's; who does not see the domain sees 0.3 everywhere else than x says."""
    rng = np.random.default_rng(5)
    domain, x = rng.choice(["a", "b"], rows), rng.normal(size=rows)
    true = 1 / (1 + np.exp(-x - np.where(domain == "a", 1, -1) * rng.normal(size=rows)))
    return {
        "label": (rng.random(rows) < true).astype(np.int8),
        "score": true**0.8 * 0.9,
        "group": np.zeros(rows),
        "domain": domain,
        "true_probability": true,
        "blind_probability": 1 / (1 + np.exp(-x)),
    }


def test_metrics_say_how_much_of_the_gap_to_the_truth_is_closed() -> None:
    rows = simulated()
    mixed = {**rows, "score": 0.5 * rows["true_probability"] + 0.5 * rows["blind_probability"]}
    found = report.evaluate(**mixed, domains=["a", "b", "empty"])
    for name, here in (("overall", slice(None)), ("a", rows["domain"] == "a")):
        values = found["overall"] if name == "overall" else found["domains"][name]
        label = rows["label"][here]
        auc, oracle, blind = (
            reference.roc_auc_score(label, p[here])
            for p in (mixed["score"], rows["true_probability"], rows["blind_probability"])
        )
        assert values["oracle_auc"] == pytest.approx(oracle)
        assert values["blind_auc"] == pytest.approx(blind)
        assert values["oracle_logloss"] == pytest.approx(reference.log_loss(label, rows["true_probability"][here]))
        assert values["share_of_gap_closed"] == pytest.approx((auc - blind) / (oracle - blind))
        assert 0.1 < values["share_of_gap_closed"] < 0.95
    assert found["domains"]["empty"]["share_of_gap_closed"] is None
    assert set(found["domains"]["empty"]) == set(found["overall"])


def test_without_a_gap_or_without_both_classes_no_share_of_it_is_given() -> None:
    rows = simulated()
    same = {**rows, "blind_probability": rows["true_probability"]}
    assert report.evaluate(**same, domains=["a", "b"])["overall"]["share_of_gap_closed"] is None
    ones = {**rows, "label": np.ones(len(rows["label"]), np.int8)}
    found = json.loads(json.dumps(report.evaluate(**ones, domains=["a", "b"]), allow_nan=False))["overall"]
    assert (found["oracle_auc"], found["blind_auc"], found["share_of_gap_closed"]) == (None, None, None)
    assert found["oracle_logloss"] > 0


def test_the_truth_without_the_blind_truth_is_a_ceiling_alone() -> None:
    rows = {name: values for name, values in simulated().items() if name != "blind_probability"}
    found = report.evaluate(**rows, domains=["a", "b", "empty"])
    assert set(found["overall"]) == KEYS | {"oracle_auc", "oracle_logloss"} == set(found["domains"]["empty"])


def test_the_table_and_the_page_show_the_truth_where_there_is_one(tmp_path: Path) -> None:
    from rich.console import Console

    rows = simulated()
    known = report.evaluate(**rows, domains=["a", "b", "empty"])
    plain = {name: values for name, values in rows.items() if "probability" not in name}
    for metrics, shown in ((known, True), (report.evaluate(**plain, domains=["a", "b"]), False)):
        console = Console(width=80, record=True)
        console.print(report.summary(metrics))
        text = console.export_text()
        assert ("closed" in text) is shown
        assert ("%" in text) is shown
        assert "…" not in text
        assert "overall" in text
        assert ("oracle log loss" in report.page(metrics, title="t", facts={}, pictures=[])) is shown
