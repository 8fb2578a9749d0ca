from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from multidomain.comparison import leaderboard as board
from multidomain.comparison import page
from multidomain.comparison.leaderboard import DELONG, T_TEST
from multidomain.comparison.results import Result
from multidomain.evaluation import report
from multidomain.evaluation.metrics import auc
from multidomain.evaluation.significance import over_rows

ROWS = 400
DOMAINS = ["home", "search"]


@pytest.fixture
def made(tmp_path):
    """Makes the result of a model whose scores are as good as ``skill``."""
    random = np.random.default_rng(0)
    label, user = random.integers(0, 2, ROWS), random.integers(0, 30, ROWS)
    domain = np.array(DOMAINS)[random.integers(0, 2, ROWS)]

    def make(name: str, seed: int, skill: float, **about) -> Result:
        noise = np.random.default_rng([seed, len(name)]).normal(size=ROWS)
        score = 1 / (1 + np.exp(-(skill * (label - 0.5) + noise)))
        folder = tmp_path / name / str(seed)
        folder.mkdir(parents=True)
        frame = {"impression_id": np.arange(ROWS), "domain": domain, "label": label, "score": score}
        pd.DataFrame(frame).to_parquet(folder / "predictions.parquet")
        values = {
            "architecture": "dnn",
            "seed": seed,
            "parameters_embedding": 100,
            "parameters_rest": 20,
            "training_rows_per_second": 1000.0 * seed,
            "inference_ms_per_2000_rows": 5.0,
        }
        (folder / "result.json").write_text(json.dumps({**values, **about}))
        metrics = report.evaluate(label, score, user, domain, DOMAINS)
        (folder / "metrics.json").write_text(json.dumps(metrics))
        return Result.read(folder, name)

    make.user = pd.Series(user, index=np.arange(ROWS))
    make.label = label
    return make


def test_means_and_standard_deviations_are_those_of_the_predictions(made):
    results = [made("good", seed, 1.0) for seed in (1, 2, 3)] + [made("base", seed, 0.5) for seed in (1, 2, 3)]
    table = board.leaderboard(results, "base")
    assert table["label"].tolist() == ["good", "base"]
    areas = [auc(frame.label, frame.score) for frame in (result.predictions() for result in results)]
    assert table["auc_mean"].tolist() == pytest.approx([np.mean(areas[:3]), np.mean(areas[3:])])
    assert table["auc_sd"].tolist() == pytest.approx([np.std(areas[:3], ddof=1), np.std(areas[3:], ddof=1)])
    against = [(a - 0.5) / (b - 0.5) - 1 for a, b in zip(areas[:3], areas[3:], strict=True)]
    assert table["rela_impr_mean"].tolist() == pytest.approx([np.mean(against), 0])
    assert table["rela_impr_sd"].tolist() == pytest.approx([np.std(against, ddof=1), 0])
    assert table["training_rows_per_second"].tolist() == [2000, 2000]


def test_the_range_of_pcoc_is_largest_minus_smallest():
    metrics = {"domains": {"a": {"pcoc": 0.9}, "b": {"pcoc": 1.2}, "c": {"pcoc": None}, "d": {"pcoc": 1.0}}}
    assert board.pcoc_range(metrics) == pytest.approx(0.3)
    assert math.isnan(board.pcoc_range({"domains": {"c": {"pcoc": None}}}))


def test_one_seed_has_no_standard_deviation_and_no_test_over_seeds(made):
    results = [made("good", 1, 1.0), made("base", 1, 0.5)]
    table = board.leaderboard(results, "base")
    assert table["auc_sd"].isna().all()
    tests = board.best_against_second(results, table, made.user)
    assert tests[T_TEST] is None
    assert tests[DELONG]["seeds"] == [1]
    assert "one seed in common: no test over seeds" in board.sentence(tests)
    assert board.with_tests(table, tests)["t_test_p"].isna().all()


def test_best_and_second_are_tested_over_seeds_and_over_rows(made):
    results = [made(name, seed, skill) for name, skill in (("a", 0.4), ("bb", 1.0), ("ccc", 0.8)) for seed in (1, 2, 3)]
    table = board.leaderboard(results, "a")
    tests = board.best_against_second(results[::-1], table, made.user)
    best, second = table["label"][:2]
    areas = {
        name: [r.metrics["overall"]["auc"] for r in sorted(results, key=lambda r: r.seed) if r.label == name]
        for name in (best, second)
    }
    assert tests[T_TEST]["p"] == pytest.approx(stats.ttest_rel(areas[best], areas[second]).pvalue)
    scores = {name: np.stack([r.predictions().score for r in results if r.label == name]) for name in (best, second)}
    wanted = over_rows(made.label, scores[best], scores[second], made.user)
    assert tests[DELONG]["p"] == pytest.approx(wanted.p)
    assert tests[DELONG]["difference"] == pytest.approx(tests[T_TEST]["difference"])
    with_p = board.with_tests(table, tests)
    assert with_p["t_test_p"].notna().tolist() == [False, True, False]
    assert with_p["delong_p"][1] == tests[DELONG]["p"]
    assert best in board.sentence(tests)


def test_only_seeds_that_both_have_are_paired(made):
    results = [made("good", 1, 1.0), made("good", 2, 1.0), made("base", 2, 0.5), made("base", 3, 0.5)]
    table = board.leaderboard(results, "base")
    assert board.best_against_second(results, table, made.user)[DELONG]["seeds"] == [2]
    assert table["rela_impr_mean"].isna().tolist() == [True, False]  # seed 1 has no base to be measured against


def test_one_model_alone_has_nothing_to_be_tested_against(made):
    results = [made("base", 1, 1.0)]
    table = board.leaderboard(results, "dnn")
    tests = board.best_against_second(results, table, made.user)
    assert set(tests.values()) == {None}
    assert "nothing to test" in board.sentence(tests)
    assert table["rela_impr_mean"].isna().all()


def test_undefined_metrics_stay_undefined_and_are_shown_as_a_dash(made):
    result = made("base", 1, 1.0)
    overall = {**result.metrics["overall"], "gauc": None}
    odd = Result(label="base", folder=result.folder, about=result.about, metrics={**result.metrics, "overall": overall})
    row = board.leaderboard([odd], "base").to_dict(orient="records")[0]
    assert board.cells(row)["gauc"] == "–"
    assert board.cells(row)["auc"] == f"{overall['auc']:.4f}"


def test_where_the_log_knows_its_truth_the_gap_closed_is_a_column(made):
    result = made("base", 1, 1.0)
    assert "gap closed" not in board.columns(board.leaderboard([result], "base")).values()
    overall = {**result.metrics["overall"], "share_of_gap_closed": 0.5, "oracle_auc": 0.9}
    told = Result(
        label="base", folder=result.folder, about=result.about, metrics={**result.metrics, "overall": overall}
    )
    table = board.leaderboard([told], "base")
    assert "gap closed" in board.columns(table).values()
    assert board.cells(table.to_dict(orient="records")[0])["share_of_gap_closed"] == "+50.00 %"


def test_numbers_are_written_with_their_spread():
    assert board.spread(0.81234, 0.0006) == "0.8123 ± 0.0006"
    assert board.spread(0.0123, 0.001, percent=True) == "+1.23 % ± 0.10"
    assert board.spread(0.8, math.nan) == "0.8000"
    assert board.spread(math.nan, math.nan) == "–"
    assert board.millions(1_234_567) == "1.235 M"


@pytest.mark.parametrize("width", [80, 200])
def test_the_summary_names_models_columns_and_tests_and_cuts_nothing(made, width):
    from rich.console import Console

    results = [made("good", seed, 1.0) for seed in (1, 2)] + [made("shared_bottom", seed, 0.5) for seed in (1, 2)]
    table = board.leaderboard(results, "shared_bottom")
    tests = board.best_against_second(results, table, made.user)
    table = table.assign(share_of_gap_closed_mean=1.2345, share_of_gap_closed_sd=0.1)
    console = Console(width=width, record=True)
    console.print(board.summary(table, tests, title="Models on log", base="shared_bottom"))
    text = console.export_text()
    assert "…" not in text
    for word in ("Models on log", "good", "shared_bottom", "GAUC", "PCOC", "RelaImpr", "ms/2000", "+123.45", T_TEST):
        assert word in text
    for row in table.to_dict(orient="records"):
        for value in board.cells(row).values():
            assert value.split(" ±")[0] in text


def page_of(folder: Path, results: list[Result], base: str, user: pd.Series) -> str:
    table = board.leaderboard(results, base)
    comparison = {
        "base": base,
        "tests": board.best_against_second(results, table, user),
        "entries": {label: {"architecture": "dnn"} for label in table["label"]},
        "notes": ["a note"],
    }
    domains = board.per_domain(results, table["label"].tolist())
    page.write(folder, table=table, domains=domains, comparison=comparison, title="<t>", facts={"data": "a & b"})
    return (folder / "leaderboard.html").read_text("utf-8")


def test_the_page_needs_nothing_else(made, tmp_path):
    results = [made("good", 1, 1.0), made("<base>", 1, 0.5)]
    text = page_of(tmp_path, results, "<base>", made.user)
    assert "http" not in text
    assert text.count("data:image/png;base64,") == 1
    for word in ("&lt;t&gt;", "a &amp; b", "a note", "&lt;base&gt;", "home", "search", "standard deviation"):
        assert word in text
    assert text.index(">good<") < text.index(">&lt;base&gt;<")


def test_a_domain_without_both_classes_leaves_an_empty_place_in_the_picture(made, tmp_path):
    result = made("base", 1, 1.0)
    domains = {**result.metrics["domains"], "home": {**result.metrics["domains"]["home"], "auc": None}}
    odd = Result(label="base", folder=result.folder, about=result.about, metrics={**result.metrics, "domains": domains})
    assert board.per_domain([odd], ["base"]).isna().to_numpy().tolist() == [[True, False]]
    assert "<td>–</td>" in page_of(tmp_path, [odd], "base", made.user)
