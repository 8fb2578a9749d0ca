from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest

from multidomain.errors import ConfigurationError, DataError
from multidomain.io import ParquetTable
from multidomain.pipelines.predict import nodes
from multidomain.pipelines.predict.nodes import score_file
from multidomain.pipelines.predict.pipeline import create_pipeline

if TYPE_CHECKING:
    from trained_variant import Tiny, Trained

    Both = tuple[Trained, Trained]
    Packages = tuple[dict[str, Any], dict[str, Any]]

pytest_plugins = ["trained_variant"]


@pytest.fixture
def rows(tiny: Tiny) -> pd.DataFrame:
    frame = tiny.training_frame.load()
    return frame.filter(frame.split == "test").order_by("impression_id").to_pandas()


@pytest.fixture
def place(packages: Packages, tracked: Path, tmp_path: Path) -> Path:
    return tmp_path


def scored(tiny: Tiny, file: Path, version: Any = None) -> pd.DataFrame:
    output = ParquetTable(filepath=str(file.parent / "scores.parquet"))
    output.save(score_file(tiny.variant, str(file), "star", version))
    return output.load().to_pandas()


def wanted(trained: Trained) -> np.ndarray:
    return trained.predictions.load().order_by("impression_id").to_pandas()["score"].to_numpy()


def test_a_parquet_file_is_scored_by_the_champion_in_order_and_in_chunks(
    tiny: Tiny, stars: Both, rows: pd.DataFrame, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nodes, "CHUNK", 50)
    rows.to_parquet(place / "rows.parquet")
    found = scored(tiny, place / "rows.parquet")
    assert found["impression_id"].tolist() == rows["impression_id"].tolist()
    assert set(found["model_version"]) == {1}
    np.testing.assert_allclose(found["score"], wanted(stars[0]), rtol=0, atol=1e-5)


@pytest.mark.parametrize(("name", "separator"), [("rows.csv", ","), ("rows.TSV", "\t")])
def test_text_files_give_the_same_scores(
    tiny: Tiny, stars: Both, rows: pd.DataFrame, place: Path, name: str, separator: str
) -> None:
    text = rows.drop(columns=["label"]).astype({"age": "Int64", "year": "Int64"})
    for column in ("tags", "codes", "positives_item_id", "positives_genre"):
        text[column] = [None if value is None else json.dumps(list(value)) for value in text[column]]
    text.to_csv(place / name, sep=separator, index=False)
    np.testing.assert_allclose(scored(tiny, place / name)["score"], wanted(stars[0]), rtol=0, atol=1e-5)


@pytest.mark.parametrize("version", [2, "2"])
def test_another_version_is_scored_when_asked_for(
    tiny: Tiny, stars: Both, rows: pd.DataFrame, place: Path, version: Any
) -> None:
    rows.to_parquet(place / "rows.parquet")
    found = scored(tiny, place / "rows.parquet", version)
    np.testing.assert_allclose(found["score"], wanted(stars[1]), rtol=0, atol=1e-5)


def test_a_version_may_be_asked_for_by_alias(tiny: Tiny, place: Path) -> None:
    from multidomain.packaging import registry

    assert registry.find(tiny.variant.key, "star") == registry.find(tiny.variant.key, "star", "champion")
    assert int(registry.find(tiny.variant.key, "star", "challenger")[1]) >= 2
    assert int(registry.find(tiny.variant.key, "star", "latest")[1]) >= 2


def test_extra_columns_do_no_harm_and_only_keys_are_passed_through(tiny: Tiny, rows: pd.DataFrame, place: Path) -> None:
    rows.drop(columns=["impression_id"]).assign(note="x").to_parquet(place / "rows.parquet")
    columns = list(scored(tiny, place / "rows.parquet"))
    assert columns == ["user", "item", "group", "timestamp", "domain", "label", "split", "score", "model_version"]


def test_a_missing_column_is_named_and_nothing_is_written(tiny: Tiny, rows: pd.DataFrame, place: Path) -> None:
    rows.drop(columns=["gender", "tags"]).to_parquet(place / "rows.parquet")
    with pytest.raises(DataError, match=r"rows.parquet lacks 'gender', 'tags'. The model reads 'domain'"):
        scored(tiny, place / "rows.parquet")
    assert sorted(path.name for path in place.iterdir()) == ["rows.parquet"]


def test_a_value_of_another_type_is_named_with_its_column_count_and_an_example(
    tiny: Tiny, rows: pd.DataFrame, place: Path
) -> None:
    age = rows["age"].astype(object)
    age.iloc[[3, 5]] = "young"
    rows.assign(age=age).drop(columns=["tags", "codes", "positives_item_id", "positives_genre"]).assign(
        tags="[]", codes="[]", positives_item_id="[]", positives_genre="[]"
    ).to_csv(place / "rows.csv", index=False)
    with pytest.raises(DataError, match=r"column 'age' must hold int64; 2 of 180 rows do not, such as 'young'"):
        scored(tiny, place / "rows.csv")
    assert sorted(path.name for path in place.iterdir()) == ["rows.csv"]


def test_a_file_without_rows_a_damaged_one_and_none_at_all_end_in_a_message(
    tiny: Tiny, rows: pd.DataFrame, place: Path
) -> None:
    rows.head(0).to_parquet(place / "empty.parquet")
    with pytest.raises(DataError, match="no rows"):
        scored(tiny, place / "empty.parquet")
    (place / "damaged.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(DataError, match=r"damaged.parquet cannot be read as parquet"):
        scored(tiny, place / "damaged.parquet")
    with pytest.raises(DataError, match=r"no file .*other.parquet.*damaged.parquet, empty.parquet"):
        scored(tiny, place / "other.parquet")
    with pytest.raises(ConfigurationError, match=r"must end in one of .parquet, .csv"):
        scored(tiny, place / "rows.xlsx")
    with pytest.raises(ConfigurationError, match=r"No file to score.*input=FILE"):
        score_file(tiny.variant, None, "star", None)


def test_a_model_that_is_not_there_says_which_are_and_how_to_train_it(tiny: Tiny, place: Path) -> None:
    with pytest.raises(ConfigurationError) as raised:
        score_file(tiny.variant, "rows.parquet", "hmdn", None)
    message = str(raised.value)
    assert "No model 'hmdn' is registered for tiny/place-user_time-full-click" in message
    assert "multidomain-tiny-place-user_time-full-click-star" in message
    assert "kedro run --pipeline=train_hmdn --params=dataset=tiny,domain=place,split=user_time" in message
    with pytest.raises(ConfigurationError, match=r"no version or alias '99'.*versions 1, 2.*challenger, champion"):
        score_file(tiny.variant, "rows.parquet", "star", 99)


def test_scores_are_written_by_one_node() -> None:
    pipeline = create_pipeline()
    assert pipeline.inputs() == {"variant", "params:input", "params:architecture", "params:version"}
    assert pipeline.all_outputs() == {"scores"}
