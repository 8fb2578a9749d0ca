from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
import torch

from multidomain.evaluation import insights
from multidomain.evaluation.insights import INSIGHTS, Collected, collect, sum_up, write
from multidomain.models import build
from multidomain.pipelines.evaluate.nodes import explain
from multidomain.tensors import EncodedSplit

if TYPE_CHECKING:
    from trained_variant import Tiny, Trained

pytest_plugins = ["trained_variant"]
DOMAIN = np.array([1, 0, 1, 1, 3])
NAMES = ["a", "b", "c", "unknown"]


def made_up(domains: int, rows: int = 300) -> Collected:
    """Every insight there is, of rows in ``domains`` domains."""
    rng = np.random.default_rng(0)
    domain = np.append(np.arange(domains), rng.integers(0, domains, rows - domains))
    values = {
        "cluster": rng.integers(0, 5, rows),
        "codes": rng.integers(0, 16, (rows, 6)),
        "field_weights": rng.dirichlet(np.ones(7), (rows, 4)).astype(np.float32),
        "kept": rng.random((rows, 7)).astype(np.float32),
        "gate": rng.dirichlet(np.ones(3), rows).astype(np.float32),
        "attention": rng.dirichlet(np.ones(20), rows).astype(np.float32),
        "generated_weight": rng.normal(size=(rows, 30)).astype(np.float32),
        "distance_from_centre": rng.random((rows, 7)).astype(np.float32),
    }
    assert values.keys() == INSIGHTS.keys()
    return Collected(values, domain)


def test_the_share_of_a_domain_s_rows_in_each_cluster_is_that_counted_by_hand() -> None:
    found = sum_up("cluster", np.array([0, 2, 2, 2, 0]), DOMAIN, NAMES)
    assert found.domains == ["a", "b", "unknown"]
    assert found.rows.tolist() == [1, 3, 1]
    assert found.columns == ["0", "1", "2"]
    np.testing.assert_allclose(found.values[:, 0], [[0, 0, 1], [1 / 3, 0, 2 / 3], [1, 0, 0]])
    np.testing.assert_allclose(found.overall, [[2 / 5, 0, 3 / 5]])


def test_a_cluster_that_no_row_meets_is_there_where_the_model_names_it() -> None:
    found = sum_up("cluster", np.array([0, 2, 2, 2, 0]), DOMAIN, NAMES, labels=list("01234"))
    assert found.columns == list("01234")
    assert not found.values[:, 0, 3:].any()


def test_codes_are_counted_level_by_level() -> None:
    found = sum_up("codes", np.array([[0, 1], [1, 1], [0, 0], [1, 1], [0, 0]]), DOMAIN, NAMES)
    assert found.panels == ["level 1", "level 2"]
    np.testing.assert_allclose(found.values[1], [[2 / 3, 1 / 3], [1 / 3, 2 / 3]])


def test_weights_of_fields_are_means_under_the_names_of_the_fields() -> None:
    weights = np.arange(5 * 2 * 3, dtype=np.float32).reshape(5, 2, 3)
    found = sum_up("field_weights", weights, DOMAIN, NAMES, labels=["user", "item", "year"])
    assert found.columns == ["user", "item", "year"]
    np.testing.assert_allclose(found.values[1], weights[[0, 2, 3]].mean(0))
    table = insights.table(found, INSIGHTS["field_weights"])
    assert list(table.columns) == ["domain", "rows", "head", "user", "item", "year"]
    assert table["domain"].tolist() == ["a", "a", "b", "b", "unknown", "unknown", "overall", "overall"]
    assert table["head"].tolist() == [1, 2] * 4
    assert table["rows"].tolist() == [1, 1, 3, 3, 1, 1, 5, 5]
    clashing = sum_up("field_weights", weights, DOMAIN, NAMES, labels=["rows", "item", "head"])
    assert list(insights.table(clashing, INSIGHTS["field_weights"]).columns[3:]) == ["field_rows", "item", "field_head"]
    assert sum_up("field_weights", weights, DOMAIN, NAMES, labels=["too", "few"]).columns == ["1", "2", "3"]


def test_an_empty_history_does_not_count_in_the_mean_attention() -> None:
    attention = np.array([[0.5, 0.5], [0, 0], [0, 0], [0, 1.0], [0.2, 0.8]])
    found = sum_up("attention", attention, DOMAIN, NAMES)
    np.testing.assert_allclose(found.values[:, 0], [[0, 0], [0.25, 0.75], [0.2, 0.8]])
    np.testing.assert_allclose(found.overall, [[0.7 / 3, 2.3 / 3]])


def test_the_spread_is_that_of_the_means_and_that_around_them() -> None:
    weights = np.array([[1.0, 0.0], [4.0, 0.0], [3.0, 0.0], [2.0, 3.0], [0.0, 2.0]])  # mean 2, 1
    found = sum_up("generated_weight", weights, DOMAIN, NAMES)
    between = [np.sqrt((2**2 + 1**2) / 2), 0, np.sqrt((2**2 + 1**2) / 2)]  # b: its mean is 2, 1
    within = [0, np.sqrt((1 + 1 + 0 + 1 + 1 + 4) / 6), 0]
    np.testing.assert_allclose(found.values[:, 0], np.stack([between, within], 1))
    assert found.overall is None


@pytest.mark.parametrize("domains", [1, 12, 60])
def test_each_insight_has_its_picture_its_numbers_and_its_words(tmp_path: Path, domains: int) -> None:
    write(
        tmp_path, made_up(domains), domains=[f"domain {n}" for n in range(domains)], labels={"cluster": list("01234")}
    )
    assert {path.name for path in tmp_path.iterdir()} == {
        "README.txt",
        *(f"{name}.{kind}" for name in INSIGHTS for kind in ("csv", "png")),
    }
    words = (tmp_path / "README.txt").read_text("utf-8")
    for name in INSIGHTS:
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert f"{name}.png, {name}.csv: " in words
        table = pd.read_csv(tmp_path / f"{name}.csv")
        assert table["domain"].drop_duplicates().str.startswith("domain").sum() == domains  # all, whatever is drawn
        assert table.notna().all(axis=None)
    shares = pd.read_csv(tmp_path / "cluster.csv").filter(like="cluster_")
    np.testing.assert_allclose(shares.sum(axis=1), 1)


def test_the_picture_shows_the_fifty_domains_with_the_most_rows_in_their_order() -> None:
    domain = np.repeat(np.arange(60), np.arange(60, 0, -1))
    found = sum_up("cluster", np.zeros(len(domain), dtype=int), domain, [f"d{n}" for n in range(60)]).largest()
    assert found.domains == [f"d{n}" for n in range(50)]
    assert found.values.shape == (50, 1, 1)


def test_the_same_insights_give_the_same_files(tmp_path: Path) -> None:
    for folder in (tmp_path / "first", tmp_path / "second"):
        folder.mkdir()
        found = made_up(3)
        few = {name: found.values[name] for name in ("cluster", "attention")}
        write(folder, Collected(few, found.domain), domains=["a", "b", "c"])
    for path in (tmp_path / "first").iterdir():
        assert path.read_bytes() == (tmp_path / "second" / path.name).read_bytes()


@pytest.mark.parametrize(
    ("values", "columns", "expected"),
    [
        (np.array([0, 1, 1, 0, 1]), ["0", "1"], [[0, 1], [2 / 3, 1 / 3], [0, 1]]),
        (np.array([1.0, 2, 3, 8, 5]), ["1"], [[2], [4], [5]]),
        (np.arange(10.0).reshape(5, 2), ["1", "2"], [[2, 3], [10 / 3, 13 / 3], [8, 9]]),
    ],
)
def test_an_insight_of_another_name_is_a_map_of_shares_or_means(tmp_path: Path, values, columns, expected) -> None:
    found = sum_up("colour", values, DOMAIN, NAMES)
    assert found.columns == columns
    np.testing.assert_allclose(found.values[:, 0], expected)
    write(tmp_path, Collected({"colour": values}, DOMAIN), domains=NAMES[:3])
    assert list(pd.read_csv(tmp_path / "colour.csv").columns[2:]) == [f"colour_{column}" for column in columns]


def test_an_insight_of_another_shape_than_its_picture_takes_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'cluster' of 5 rows must have 1 dimensions.*shape \(4,\)"):
        sum_up("cluster", np.zeros(4), DOMAIN, NAMES)
    with pytest.raises(ValueError, match=r"'attention' of 5 rows must have 2 dimensions.*shape \(5,\)"):
        sum_up("attention", np.zeros(5), DOMAIN, NAMES)
    with pytest.raises(ValueError, match=r"'colour' of 5 rows must have 1 or 2 or 3 dimensions.*shape \(5, 1, 1, 1\)"):
        sum_up("colour", np.zeros((5, 1, 1, 1)), DOMAIN, NAMES)


def test_a_sample_is_drawn_by_the_seed_and_each_row_has_its_own_domain(tiny: Tiny) -> None:
    split = EncodedSplit(tiny.encoded, "test")
    torch.manual_seed(0)
    model = build("adaptdhm", split.inputs, embedding_dim=4, hidden=[8])
    everything = collect(model, split, seed=1, device="cpu")
    assert len(everything.domain) == 180
    with torch.no_grad():
        assert everything.values["cluster"].tolist() == model.insights(split.batch(slice(None)))["cluster"].tolist()
    some, same, others = (collect(model, split, seed=seed, device="cpu", size=50) for seed in (1, 1, 2))
    assert len(some.domain) == len(some.values["cluster"]) == 50
    assert np.array_equal(some.values["cluster"], same.values["cluster"])
    assert np.array_equal(some.domain, same.domain)
    assert not np.array_equal(some.domain, others.domain)


def test_a_trained_star_shows_how_far_its_domains_are_from_the_centre(stars: tuple[Trained, Trained]) -> None:
    folder = stars[0].insights
    assert {path.name for path in folder.iterdir()} == {
        "README.txt",
        "distance_from_centre.csv",
        "distance_from_centre.png",
    }
    table = pd.read_csv(folder / "distance_from_centre.csv")
    assert table["domain"].tolist() == ["home", "search", "detail page", "overall"]
    assert table["rows"].iloc[-1] == table["rows"].iloc[:-1].sum() == 180
    assert list(table.columns[2:]) == ["layer_1", "layer_2", "layer_3"]
    assert (table.filter(like="layer_") > 0).all(axis=None)


def test_a_trained_adaptdhm_shows_the_clusters_of_its_domains(tiny: Tiny) -> None:
    folder = tiny.train("adaptdhm", 1).insights
    table = pd.read_csv(folder / "cluster.csv")
    assert list(table.columns) == ["domain", "rows", *(f"cluster_{j}" for j in range(9))]
    np.testing.assert_allclose(table.filter(like="cluster_").sum(axis=1), 1)
    assert (folder / "cluster.png").stat().st_size > 5_000


def test_a_model_that_shows_nothing_says_so(tiny: Tiny, tmp_path: Path) -> None:
    trained = tiny.train("dnn", 1)
    explain(tiny.encoded, trained.model, 1, "cpu")(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["README.txt"]
    assert "nothing to show" in (tmp_path / "README.txt").read_text("utf-8")
