"""The model card, from what a training left behind."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from multidomain.packaging.card import Facts, card, limits

if TYPE_CHECKING:
    from trained_variant import Trained

pytest_plugins = ["trained_variant"]


def measured(rows: int, auc: float | None = 0.75) -> dict[str, Any]:
    return {"rows": rows, "auc": auc, "gauc": None, "pcoc": 1.01234, "logloss": 0.5, "ece": 0.01}


FACTS = Facts(
    model="multidomain-shop-place-time-full-click-star",
    architecture="star",
    dataset="shop",
    variant="place-time-full-click",
    label="click",
    licence="for research",
    rows={"train": 12_000, "validation": 2_000, "test": 3_140},
    columns={"domain": "string", "tags": "list<item: string>", "a|b": "double"},
    metrics={
        "overall": measured(3140, 0.8),
        "domains": {"home": measured(3000), "banner": measured(140, None), "search": measured(0, None)},
    },
    data="abc123",
    revision="def456",
    seed=7,
    settings=[("model.hidden", [16, 8]), ("training.epochs", 2)],
)


def test_a_card_names_the_data_the_columns_and_the_settings() -> None:
    text = card(FACTS)
    assert text.startswith("# multidomain-shop-place-time-full-click-star\n\nThe probability of `click`")
    for line in (
        "| rows | 12,000 train, 2,000 validation, 3,140 test |",
        "| fingerprint of the encoded data | abc123 |",
        "| code | def456 |",
        "| licence of the data | for research |",
        "| tags | list<item: string> |",
        "| a\\|b | double |",
        "| model.hidden | [16, 8] |",
    ):
        assert line in text.splitlines()
    assert "citation" not in text  # the schema gives none


def test_metrics_stand_by_domain_and_overall_and_what_is_undefined_is_a_dash() -> None:
    lines = card(FACTS).splitlines()
    assert "| domain | rows | AUC | GAUC | PCOC | log loss | ECE |" in lines
    assert "| home | 3,000 | 0.7500 | – | 1.0123 | 0.5000 | 0.0100 |" in lines
    assert "| banner | 140 | – | – | 1.0123 | 0.5000 | 0.0100 |" in lines
    assert "| **overall** | 3,140 | 0.8000 | – | 1.0123 | 0.5000 | 0.0100 |" in lines
    assert not [line for line in lines if line.startswith("| search ")]


def test_limits_name_small_empty_and_one_sided_domains() -> None:
    found = limits(FACTS)
    assert found[0].startswith("`banner`: fewer than 1,000 rows")
    assert found[1].startswith("`search`: no row in the test split")
    assert found[2].startswith("`banner`: all rows of the test split have one label")
    assert any("unknown domain" in limit for limit in found)
    many = {f"d{number:02}": measured(5) for number in range(12)}
    few = limits(replace(FACTS, metrics={"overall": measured(60), "domains": many}))[0]
    assert few.startswith("`d00`, `d01`")
    assert "`d09` and 2 more: fewer" in few


def test_a_card_shows_the_largest_domains_and_says_how_many_there_are() -> None:
    domains = {f"d{number:02}": measured(100 + number) for number in range(60)}
    text = card(replace(FACTS, metrics={"overall": measured(9000), "domains": domains}))
    assert "| d59 |" in text
    assert "| d10 |" in text
    assert "| d09 |" not in text
    assert "The 50 largest of 60 domains" in text


def test_sampled_negatives_and_an_onnx_file_are_told_of() -> None:
    plain, special = card(FACTS), card(replace(FACTS, negative_rate=0.1, onnx=True))
    assert "onnx" not in plain
    assert "without `click`. The scores" not in plain
    assert "Each epoch saw 0.1 of the training rows without `click`" in special
    assert 'model_config={"engine": "onnx"}' in special


def test_the_card_lies_in_the_package_and_in_the_run(
    stars: tuple[Trained, Trained], packages: tuple[dict[str, Any], dict[str, Any]], tracked: Path
) -> None:
    from multidomain import tracking

    text = (Path(packages[0]["path"]) / "artifacts/MODEL_CARD.md").read_text("utf-8")
    assert "| rows | 540 train, 180 validation, 180 test |" in text
    auc = stars[0].metrics["domains"]["detail page"]["auc"]
    assert f"| {auc:.4f} |" in next(line for line in text.splitlines() if line.startswith("| detail page "))
    assert "| positives_genre | list<item: string> |" in text
    assert "MODEL_CARD.md" in {file.path for file in tracking.connect().list_artifacts(packages[0]["run_id"])}


@pytest.mark.parametrize("name", ["domain", "user_id"])
def test_every_column_the_model_reads_is_listed(packages: tuple[dict[str, Any], dict[str, Any]], name: str) -> None:
    text = (Path(packages[0]["path"]) / "artifacts/MODEL_CARD.md").read_text("utf-8")
    assert f"| {name} | string |" in text
