"""The ONNX file of a package: every architecture, scored by onnxruntime as by PyTorch."""

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
import torch

from multidomain import models
from multidomain.encoder import Encoder
from multidomain.errors import ConfigurationError
from multidomain.packaging import onnx_export
from multidomain.packaging.contents import serving_form
from multidomain.packaging.onnx_scorer import OnnxScorer
from multidomain.packaging.options import PackageOptions
from multidomain.packaging.scorer import Scorer

if TYPE_CHECKING:
    from trained_variant import Tiny, Trained

pytest_plugins = ["trained_variant"]
SMALL: dict[str, Any] = {"embedding_dim": 4, "hidden": [8, 4]}
CANNOT: dict[str, str] = {}  # architecture -> why it cannot be written as a graph, in words a user reads
OTHERS = [
    ("dnn", {"normalization": "partitioned", "history": "ads_din", "distribution": "hmdn"}),
    ("star", {"normalization": "layer", "fcn": "shared", "history": "can"}),
    ("adaptdhm", {"normalization": "partitioned", "routing": "user"}),
    ("ple", {"levels": 1}),
]


def folder_of(tiny: Tiny, place: Path, name: str, config: dict[str, Any]) -> Path:
    """A model of that kind that has met the domains 0 and 1, as it is served."""
    from safetensors.torch import save_file

    encoder = Encoder.load(tiny.encoder)
    torch.manual_seed(0)
    model = models.build(name, encoder.inputs, **config)
    rows = tiny.training_frame.load().filter(lambda t: t.domain_id < 2).limit(64).to_pyarrow()
    model(encoder.batch(rows))
    (place / "model").mkdir(parents=True)
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, place / "model/weights.safetensors")
    about = {"architecture": name, "config": config, "inputs": encoder.inputs.to_dict()}
    (place / "model/model.json").write_text(json.dumps(about))
    serving_form(place / "model", place / "served")
    return place / "served"


def delivered(tiny: Tiny) -> pd.DataFrame:
    """Rows of every domain, and some of none that is known."""
    rows = tiny.training_frame.load().order_by("impression_id").limit(90).to_pandas()
    rows.loc[rows.index % 10 == 3, "domain"] = "elsewhere"
    return rows


@pytest.mark.parametrize(
    ("name", "options"),
    [*((name, {}) for name in models.architectures() if name not in CANNOT), *OTHERS],
    ids=lambda one: one if isinstance(one, str) else "-".join(map(str, one.values())),
)
def test_onnxruntime_scores_as_pytorch_does_whatever_rows_stand_together(
    tiny: Tiny, tmp_path: Path, name: str, options: dict[str, Any]
) -> None:
    served = folder_of(tiny, tmp_path, name, {**SMALL, **options})
    onnx_export.export(served, Encoder.load(tiny.encoder), tmp_path / "onnx")
    ours = Scorer.load(tiny.encoder, served)
    theirs = OnnxScorer.load(tiny.encoder, tmp_path / "onnx", threads=1)
    rows = delivered(tiny)
    wanted = ours.predict(rows)["score"]
    np.testing.assert_allclose(theirs.predict(rows)["score"], wanted, rtol=0, atol=1e-5)
    one = theirs.predict(rows.iloc[[3]])["score"]
    np.testing.assert_allclose(one, wanted.iloc[[3]], rtol=0, atol=1e-5)
    theirs.by_domain = not theirs.by_domain  # a graph takes rows of several domains, or of one at a time
    np.testing.assert_allclose(theirs.predict(rows)["score"], wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "by_domain"),
    [("star", True), ("shared_bottom", True), ("mmoe", True), ("ple", True), ("adaptdhm", False), ("dnn", False)],
)
def test_rows_are_scored_one_domain_at_a_time_where_a_domain_has_weights_of_its_own(
    tiny: Tiny, tmp_path: Path, name: str, by_domain: bool
) -> None:
    from multidomain.packaging.scorer import restore

    network = restore(folder_of(tiny, tmp_path, name, SMALL))
    assert onnx_export.has_weights_by_domain(network, 3) is by_domain


def test_making_a_graph_leaves_training_and_scoring_as_they_were(tiny: Tiny, tmp_path: Path) -> None:
    served = folder_of(tiny, tmp_path, "star", {**SMALL, "history": "din"})
    scorer, rows = Scorer.load(tiny.encoder, served), delivered(tiny)
    before = scorer.predict(rows)["score"]
    onnx_export.export(served, Encoder.load(tiny.encoder), tmp_path / "onnx")
    pd.testing.assert_series_equal(scorer.predict(rows)["score"], before, check_exact=True)
    trained = tiny.train("star", 1)
    assert len(trained.history) == 2


def test_candidates_and_what_they_share_score_as_whole_rows(tiny: Tiny, tmp_path: Path) -> None:
    served = folder_of(tiny, tmp_path, "star", SMALL)
    onnx_export.export(served, Encoder.load(tiny.encoder), tmp_path / "onnx")
    scorer = OnnxScorer.load(tiny.encoder, tmp_path / "onnx")
    table = scorer.table(delivered(tiny))
    shared = ["user_id", "gender", "age", "positives_item_id", "positives_genre", "domain"]
    candidates, user = table.slice(0, 20).drop_columns(shared), table.slice(5, 1).select(shared)
    whole = candidates
    for column in shared:
        whole = whole.append_column(column, user[column].combine_chunks().take([0] * 20))
    np.testing.assert_allclose(scorer.score_candidates(candidates, user), scorer.score(whole), rtol=0, atol=1e-6)


def test_no_rows_have_no_scores_and_a_missing_column_is_named(tiny: Tiny, tmp_path: Path) -> None:
    served = folder_of(tiny, tmp_path, "dnn", SMALL)
    onnx_export.export(served, Encoder.load(tiny.encoder), tmp_path / "onnx")
    scorer, rows = OnnxScorer.load(tiny.encoder, tmp_path / "onnx"), delivered(tiny)
    assert len(scorer.predict(rows.iloc[:0])) == 0
    with pytest.raises(ValueError, match=r"The rows lack 'gender'\. The model reads 'domain', 'user_id'"):
        scorer.predict(rows.drop(columns="gender"))
    with pytest.raises(ValueError, match="'age' must hold int64"):
        scorer.predict(rows.assign(age="young"))


def test_a_network_that_no_graph_can_hold_is_an_error_that_says_what_to_do(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = folder_of(tiny, tmp_path, "star", SMALL)
    monkeypatch.setattr("multidomain.layers.domain_linear.exporting", lambda: False)
    with pytest.raises(ConfigurationError, match=r"'star' with these options cannot be written .* Leave package\.onnx"):
        onnx_export.export(served, Encoder.load(tiny.encoder), tmp_path / "onnx")


def test_options_of_a_package_are_checked_before_anything_is_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    assert PackageOptions.of(None) == PackageOptions.of({"onnx": False}) == PackageOptions(onnx=False)
    with pytest.raises(ConfigurationError, match="package: 'onyx' is not known; did you mean 'onnx'"):
        PackageOptions.of({"onyx": True})
    with pytest.raises(ConfigurationError, match=r"package\.onnx must be true or false, got 'yes'"):
        PackageOptions.of({"onnx": "yes"})
    monkeypatch.setattr(onnx_export, "NEEDED", ("onnx", "no_such_package"))
    with pytest.raises(
        ConfigurationError, match=r"no_such_package is not installed.*pip install 'multidomain\[onnx\]'"
    ):
        PackageOptions.of({"onnx": True})


@pytest.fixture(scope="module")
def packaged(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> tuple[Trained, dict[str, Any]]:
    """An AdaptDHM with calibrated probabilities, packaged with its ONNX file."""
    trained = tiny.train("adaptdhm", 1, calibration="isotonic")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MULTIDOMAIN_DATA", str(tmp_path_factory.mktemp("mlflow_onnx")))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        return trained, trained.package(options={"onnx": True})


def test_a_package_with_an_onnx_file_was_checked_with_both_engines(packaged: tuple[Trained, dict[str, Any]]) -> None:
    _, made = packaged
    assert made["checks"]["onnx"]["rows"] == made["checks"]["rows"] == 180
    assert made["checks"]["onnx"]["max_difference"] <= made["checks"]["onnx"]["tolerance"] == 1e-5
    assert "onnxruntime==" in (Path(made["path"]) / "requirements.txt").read_text("utf-8")


def test_both_engines_calibrate_what_the_network_gives(packaged: tuple[Trained, dict[str, Any]]) -> None:
    artifacts = Path(packaged[1]["path"]) / "artifacts"
    curves = [json.loads((artifacts / folder / "calibration.json").read_text("utf-8")) for folder in ("model", "onnx")]
    assert curves[0] == curves[1] == packaged[0].calibration
    assert "| calibration, fitted on validation | isotonic |" in (artifacts / "MODEL_CARD.md").read_text("utf-8")


def test_a_model_of_sampled_negatives_scores_the_same_everywhere(
    tiny: Tiny, apart: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import trained_variant

    monkeypatch.setitem(trained_variant.TRAINING, "negative_rate", 0.3)
    trained = tiny.train("star", 9)
    for folder in (trained.model, Path(trained.package(options={"onnx": True})["path"]) / "artifacts/model"):
        about = json.loads((folder / "model.json").read_text("utf-8"))
        assert about["logit_offset"] == pytest.approx(np.log(0.3))
    frame = trained.predictions.load().to_pandas()
    assert frame["score"].mean() == pytest.approx(frame["label"].mean(), abs=0.2)


def test_mlflow_loads_either_engine_and_both_score_alike(tiny: Tiny, packaged: tuple[Trained, dict[str, Any]]) -> None:
    import mlflow

    rows = delivered(tiny)
    engines = [mlflow.pyfunc.load_model(packaged[1]["path"], model_config={"engine": e}) for e in ("torch", "onnx")]
    assert type(engines[1].unwrap_python_model().scorer).__name__ == "OnnxScorer"
    scores = [engine.predict(rows)["score"].to_numpy() for engine in engines]
    np.testing.assert_allclose(*scores, rtol=0, atol=1e-5)


def test_the_onnx_file_is_scored_without_the_project_and_without_pytorch(
    tiny: Tiny, packaged: tuple[Trained, dict[str, Any]], tmp_path: Path
) -> None:
    trained, made = packaged
    frame = tiny.training_frame.load()
    frame.filter(frame.split == "test").order_by("impression_id").to_pandas().to_parquet(tmp_path / "rows.parquet")
    program = """
import importlib, importlib.abc, json, sys
from pathlib import Path

class Blocked(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("multidomain", "kedro", "feast", "torch", "mlflow"):
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Blocked())
import pandas as pd

package = Path(sys.argv[1])
code = next((package / "code").iterdir())
sys.path.insert(0, str(code.parent))
scorer = importlib.import_module(f"{code.name}.packaging.onnx_scorer").OnnxScorer
artifacts = package / "artifacts"
found = scorer.load(artifacts / "encoder", artifacts / "onnx").predict(pd.read_parquet("rows.parquet"))
assert "torch" not in sys.modules
print(json.dumps(found["score"].tolist()))
"""
    outside = {key: value for key, value in os.environ.items() if not key.startswith(("MULTIDOMAIN", "PYTHON"))}
    done = subprocess.run(
        [sys.executable, "-I", "-c", program, made["path"]],
        cwd=tmp_path,
        env=outside,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    wanted = trained.predictions.load().order_by("impression_id").to_pandas()["score"]
    np.testing.assert_allclose(json.loads(done.stdout.splitlines()[-1]), wanted, rtol=0, atol=1e-5)


def test_a_package_without_one_says_so_when_asked_for_it(packages: tuple[dict[str, Any], dict[str, Any]]) -> None:
    import mlflow

    with pytest.raises(Exception, match=r"no ONNX file: it was made with package\.onnx false"):
        mlflow.pyfunc.load_model(packages[0]["path"], model_config={"engine": "onnx"})
