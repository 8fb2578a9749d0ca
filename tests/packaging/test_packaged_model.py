"""Packaged models: self-contained, side by side, and scoring as the run did."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest

from multidomain import tracking
from multidomain.errors import DataError

if TYPE_CHECKING:
    from trained_variant import Tiny, Trained

    Both = tuple[Trained, Trained]
    Packages = tuple[dict[str, Any], dict[str, Any]]

pytest_plugins = ["trained_variant"]
NAME = "multidomain-tiny-place-user_time-full-click-star"


def delivered(tiny: Tiny) -> pd.DataFrame:
    frame = tiny.training_frame.load()
    return frame.filter(frame.split == "test").order_by("impression_id").to_pandas()


def scores(trained: Trained) -> np.ndarray:
    return trained.predictions.load().order_by("impression_id").to_pandas()["score"].to_numpy()


@pytest.fixture(scope="module")
def model(packages: Packages) -> Any:
    import mlflow

    return mlflow.pyfunc.load_model(packages[0]["path"])


def test_the_package_scores_like_the_run_to_1e_5_where_folded_and_1e_6_where_not(
    tiny: Tiny, packages: Packages, apart: Path
) -> None:
    for made in packages:
        assert made["checks"]["folded"]
        assert made["checks"]["rows"] == 180
        assert made["checks"]["max_difference"] <= made["checks"]["tolerance"] == 1e-5
    plain = tiny.train("dnn", 1).package()
    assert not plain["checks"]["folded"]
    assert plain["checks"]["max_difference"] <= plain["checks"]["tolerance"] == 1e-6
    assert (plain["version"], plain["alias"]) == (1, "champion")


def test_the_first_version_is_the_champion_and_one_that_the_gate_refuses_a_challenger(stars: Both, apart: Path) -> None:
    packages = stars[0].package(), stars[1].package(gate={"pcoc_low": 5, "pcoc_high": 9})
    assert [(made["model"], made["version"], made["alias"]) for made in packages] == [
        (NAME, 1, "champion"),
        (NAME, 2, "challenger"),
    ]
    client = tracking.connect()
    aliases = client.get_registered_model(NAME).aliases
    assert {alias: int(version) for alias, version in aliases.items()} == {"champion": 1, "challenger": 2}
    tags = client.get_model_version(NAME, "2").tags
    assert tags["gate"] == "refused"
    assert tags["gate_reason_1"].endswith("it must lie from 5 to 9.")
    assert client.get_model_version(NAME, "1").tags["gate"] == "passed"


def test_a_run_is_recorded_with_parameters_metrics_plots_data_and_revision(
    stars: Both, packages: Packages, tracked: Path
) -> None:
    client = tracking.connect()
    run = client.get_run(packages[0]["run_id"])
    assert run.info.status == "FINISHED"
    assert run.data.params["model.embedding_dim"] == "4"
    assert run.data.params["training.epochs"] == "2"
    assert run.data.params["seed"] == "1"
    assert run.data.metrics["test_auc"] == pytest.approx(stars[0].metrics["overall"]["auc"])
    assert run.data.metrics["domain/detail page/pcoc"] == pytest.approx(
        stars[0].metrics["domains"]["detail page"]["pcoc"]
    )
    history = client.get_metric_history(packages[0]["run_id"], "validation_auc")
    assert [point.step for point in history] == [1, 2]
    tags = run.data.tags
    assert tags["variant"] == "place-user_time-full-click"
    assert len(tags["data_fingerprint"]) == 24
    assert tags["git_revision"]
    logged = {file.path for file in client.list_artifacts(packages[0]["run_id"])}
    assert {"plots", "insights", "metrics.json", "history.csv"} <= logged
    assert "plots/report.html" in {file.path for file in client.list_artifacts(packages[0]["run_id"], "plots")}
    insights = {file.path for file in client.list_artifacts(packages[0]["run_id"], "insights")}
    assert "insights/distance_from_centre.png" in insights
    assert Path(packages[0]["path"]).is_relative_to(tracked)


def test_two_versions_score_side_by_side_without_the_project(
    tiny: Tiny, stars: Both, packages: Packages, tmp_path: Path
) -> None:
    rows = delivered(tiny)
    rows.to_parquet(tmp_path / "rows.parquet")
    program = """
import importlib.abc, json, sys

class Blocked(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("multidomain", "kedro", "feast", "great_expectations"):
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Blocked())
try:
    import multidomain
except ModuleNotFoundError:
    pass
else:
    raise SystemExit("the project can be imported")
import mlflow
import pandas as pd

rows = pd.read_parquet("rows.parquet")
models = [mlflow.pyfunc.load_model(path) for path in sys.argv[1:]]
scores = [model.predict(rows[model.metadata.get_input_schema().input_names()])["score"].tolist() for model in models]
again = models[0].predict(rows[models[0].metadata.get_input_schema().input_names()])["score"].tolist()
assert again == scores[0]
own = sorted(name for name in sys.modules if name.startswith("multidomain_scorer_") and "." not in name)
print(json.dumps({"scores": scores, "packages": own}))
"""
    outside = {
        key: value for key, value in os.environ.items() if not key.startswith(("MLFLOW", "MULTIDOMAIN", "PYTHON"))
    }
    done = subprocess.run(
        [sys.executable, "-I", "-c", program, *(made["path"] for made in packages)],
        cwd=tmp_path,
        env=outside | {"OMP_NUM_THREADS": "1", "MLFLOW_DISABLE_TELEMETRY": "true"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert len(found["packages"]) == 2
    for trained, got in zip(stars, found["scores"], strict=True):
        np.testing.assert_allclose(got, scores(trained), rtol=0, atol=1e-5)
    assert np.abs(np.subtract(*found["scores"])).max() > 1e-3


def test_a_package_holds_no_pickle_and_pins_what_it_needs(packages: Packages) -> None:
    files = [path for path in Path(packages[0]["path"]).rglob("*") if path.is_file()]
    assert not [path.name for path in files if path.suffix in (".pkl", ".pickle", ".pt", ".pth", ".joblib")]
    pinned = (Path(packages[0]["path"]) / "requirements.txt").read_text("utf-8")
    assert all(f"{name}==" in pinned for name in ("torch", "numpy", "pandas", "pyarrow", "safetensors", "mlflow"))
    assert "+" not in pinned


def test_the_signature_names_the_columns_of_the_feature_stage(model: Any) -> None:
    declared = {column.name: column for column in model.metadata.get_input_schema().inputs}
    assert "label" not in declared
    assert declared["user_id"].required
    assert not declared["gender"].required
    assert [str(declared[name].type) for name in ("user_id", "hour", "price", "positives_genre", "tags")] == [
        "DataType.string",
        "DataType.long",
        "DataType.double",
        "Array(string)",
        "Array(string)",
    ]
    assert model.metadata.get_output_schema().input_names() == ["score"]


def test_the_input_example_can_be_served_as_json(model: Any, packages: Packages) -> None:
    from mlflow.models.utils import _validate_serving_input

    example = (Path(packages[0]["path"]) / "serving_input_example.json").read_text("utf-8")
    answer = _validate_serving_input(packages[0]["path"], example)
    assert len(answer) == 3
    assert answer["score"].between(0, 1).all()


def test_scores_do_not_depend_on_how_pandas_holds_a_column(model: Any, tiny: Tiny, stars: Both) -> None:
    rows = delivered(tiny)
    wanted = scores(stars[0])
    variants = {
        "nullable integers": rows.astype({"age": "Int64", "year": "Int64", "hour": "int32"}),
        "objects": rows.astype({"age": object}).assign(age=[None if pd.isna(a) else int(a) for a in rows["age"]]),
        "arrays": rows.assign(tags=[None if t is None else np.array(t, dtype=object) for t in rows["tags"]]),
        "float32": rows.astype({"price": "float32", "user_rate": "float32"}),
        "shuffled columns": rows[sorted(rows.columns, reverse=True)],
    }
    for name, frame in variants.items():
        np.testing.assert_allclose(model.predict(frame)["score"], wanted, rtol=0, atol=1e-5, err_msg=name)


def test_rows_keep_their_order_and_index_and_do_not_depend_on_each_other(model: Any, tiny: Tiny) -> None:
    rows = delivered(tiny)
    whole = model.predict(rows)["score"]
    shuffled = rows.sample(frac=1, random_state=3)
    pd.testing.assert_series_equal(model.predict(shuffled)["score"].sort_index(), whole, atol=1e-6, rtol=0)
    for number in (0, 7):
        alone = model.predict(rows.iloc[[number]])["score"]
        assert alone.index.tolist() == [number]
        assert alone.iloc[0] == pytest.approx(whole.iloc[number], abs=1e-6)
    assert len(model.unwrap_python_model().scorer.predict(rows.iloc[:0])) == 0


def test_what_training_never_saw_is_scored(model: Any, tiny: Tiny) -> None:
    row = delivered(tiny).iloc[:4].copy()
    row["user_id"], row["item_id"], row["domain"] = "nobody", "nothing", "elsewhere"
    row["gender"], row["age"], row["price"], row["year"] = None, np.nan, np.nan, None
    row["tags"] = pd.Series([None, [], ["new"], ["x", "new"]], index=row.index)
    row["positives_item_id"] = pd.Series([None, [], ["new"], ["i1"]], index=row.index)
    row["positives_genre"] = pd.Series([None, [], ["new"], ["a"]], index=row.index)
    assert model.predict(row)["score"].between(0, 1).all()


@pytest.mark.parametrize("column", ["user_id", "gender", "tags", "age", "domain", "user_count"])
def test_a_missing_column_is_named(model: Any, tiny: Tiny, column: str) -> None:
    with pytest.raises(Exception, match=f"'{column}'"):
        model.predict(delivered(tiny).drop(columns=column))


def test_a_value_of_another_type_is_named(model: Any, tiny: Tiny) -> None:
    with pytest.raises(ValueError, match=r"'age' must hold int64.*'young'"):
        model.predict(delivered(tiny).assign(age="young"))
    with pytest.raises(ValueError, match=r"'year' must hold double"):
        model.predict(delivered(tiny).assign(year="long ago"))


def test_a_package_that_scores_otherwise_is_refused_and_not_registered(stars: Both, apart: Path) -> None:
    client = tracking.connect()
    before = len(client.search_model_versions(f"name='{NAME}'"))
    with pytest.raises(DataError, match=r"180 of 180 rows.*differ by more than 1e-05.*impression"):
        stars[0].package(predictions=stars[1].predictions.load())
    assert len(client.search_model_versions(f"name='{NAME}'")) == before
    latest = client.search_runs([client.get_experiment_by_name("multidomain-tiny").experiment_id], max_results=1)[0]
    assert latest.info.status == "FAILED"


def test_loading_a_package_leaves_the_search_path_as_it_was(stars: Both, apart: Path) -> None:
    before = list(sys.path)
    stars[0].package()
    assert sys.path == before
