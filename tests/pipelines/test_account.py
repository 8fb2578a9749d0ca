"""The account of a scored split: segments, reference, calibration; and what the gate makes of it."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ibis
import numpy as np
import pandas as pd
import pytest

from multidomain import tracking
from multidomain.errors import ConfigurationError, DataError
from multidomain.evaluation import metrics
from multidomain.packaging import registry
from multidomain.pipelines.evaluate.account import account, reference, scored_rows
from multidomain.pipelines.evaluate.nodes import calibrate

if TYPE_CHECKING:
    from trained_variant import Tiny, Trained

    Both = tuple[Trained, Trained]
    Packages = tuple[dict[str, Any], dict[str, Any]]

pytest_plugins = ["trained_variant"]
NAME = "multidomain-tiny-place-user_time-full-click-star"


@pytest.fixture
def first(stars: Both, apart: Path) -> dict[str, Any]:
    """The first version of a model, in an MLflow of one test's own."""
    return stars[0].package()


def joined(tiny: Tiny, trained: Trained) -> pd.DataFrame:
    rows = tiny.training_frame.load().to_pandas()
    scored = trained.predictions.load().to_pandas()[["impression_id", "score"]]
    return rows.merge(scored, on="impression_id").assign(
        user_rows=lambda f: f["user"].map(rows[rows["split"] == "train"]["user"].value_counts()).fillna(0),
        item_rows=lambda f: f["item"].map(rows[rows["split"] == "train"]["item"].value_counts()).fillna(0),
    )


def test_each_segment_has_the_metrics_of_its_rows(tiny: Tiny, stars: Both) -> None:
    table = stars[0].segments.load().to_pandas().set_index(["by", "name"])
    rows = joined(tiny, stars[0])
    parts = {("domain", name): rows[rows["domain"] == name] for name in ("home", "search", "detail page")}
    parts["overall", "overall"] = rows
    for by, column in (("user activity", "user_rows"), ("item popularity", "item_rows")):
        parts[by, "1-9"] = rows[rows[column].between(1, 9)]
        parts[by, "10-99"] = rows[rows[column].between(10, 99)]
    assert sum(len(part) for (by, _), part in parts.items() if by == "user activity") == len(rows)
    checked = 0
    for key, part in parts.items():
        if not len(part):
            assert key not in table.index
            continue
        label, score, user = (part[column].to_numpy() for column in ("label", "score", "user"))
        found = table.loc[key]
        assert found["rows"] == len(part)
        assert found["auc"] == pytest.approx(metrics.auc(label, score), nan_ok=True)
        assert found["gauc"] == pytest.approx(metrics.gauc(label, score, user)[0], nan_ok=True)
        assert found["pcoc"] == pytest.approx(metrics.pcoc(label, score), nan_ok=True)
        assert found["ece"] == pytest.approx(metrics.ece(label, score))
        assert found["auc_low"] < found["auc"] < found["auc_high"]
        checked += 1
    assert checked >= 6
    assert "day" not in table.index.get_level_values("by")  # its rows are of one day


def test_gauc_is_given_by_group_by_user_and_by_session(tiny: Tiny, stars: Both) -> None:
    gap = 20 / 60  # its impressions are a second apart
    _, about = account(tiny.training_frame.load(), stars[0].predictions.load(), stars[0].reference.load(), gap)
    rows = joined(tiny, stars[0]).sort_values("timestamp")
    silent = rows.groupby("user")["timestamp"].diff() >= pd.Timedelta(seconds=20)
    session = rows["user"] + "/" + silent.groupby(rows["user"]).cumsum().astype(str)
    expected = {
        name: metrics.gauc(rows["label"], rows["score"], one)
        for name, one in {"group": rows["group"], "user": rows["user"], "session": session}.items()
    }
    for name, (value, coverage) in expected.items():
        assert about["gauc_by"][name] == pytest.approx({"gauc": value, "coverage": coverage})
    assert session.nunique() > rows["user"].nunique()
    assert about["gauc_by"]["session"] != about["gauc_by"]["user"]
    assert stars[0].account["reference"] is None
    assert stars[0].account["intervals"]["auc"]["value"] == pytest.approx(stars[0].metrics["overall"]["auc"])


def test_the_page_tells_segments_intervals_and_cost(stars: Both) -> None:
    page = (stars[0].plots / "report.html").read_text("utf-8")
    for said in ("How sure these figures are", "By user activity", "By item popularity", "Cost", "95 % interval"):
        assert said in page
    assert "Beside" not in page


def test_the_champion_is_scored_on_the_same_rows(tiny: Tiny, stars: Both, packages: Packages, tracked: Path) -> None:
    found = reference(tiny.variant, tiny.training_frame.load(), stars[1].predictions.load(), stars[1].model, None)
    assert found.column_names == ["impression_id", "score", "model"]
    assert set(found.column("model").to_pylist()) == {f"{NAME}/1"}
    expected = stars[0].predictions.load().to_pandas().set_index("impression_id")["score"]
    got = found.to_pandas().set_index("impression_id")["score"]
    np.testing.assert_allclose(got, expected.loc[got.index], atol=1e-5)

    table, about = account(
        tiny.training_frame.load(), stars[1].predictions.load(), ibis.memtable(found.to_pandas()), 30
    )
    assert about["reference"]["model"] == f"{NAME}/1"
    gap = stars[1].metrics["overall"]["auc"] - stars[0].metrics["overall"]["auc"]
    assert about["reference"]["differences"]["auc"]["value"] == pytest.approx(gap, abs=1e-4)
    overall = table[table["by"] == "overall"].iloc[0]
    assert overall["reference_auc"] == pytest.approx(stars[0].metrics["overall"]["auc"], abs=1e-4)
    assert overall["difference_low"] < overall["difference"] < overall["difference_high"]
    listed = table[(table["by"] == "domain") & table["worse"]]["name"].tolist()
    assert sorted(about["reference"]["worse_domains"]) == sorted(listed)


def test_without_a_champion_there_is_no_reference(tiny: Tiny, stars: Both, packages: Packages, tracked: Path) -> None:
    given = (tiny.variant, tiny.training_frame.load(), stars[0].predictions.load(), stars[0].model)
    assert len(reference(*given, "mmoe")) == 0
    with pytest.raises(ConfigurationError, match="no architecture 'stra'"):
        reference(*given, "stra")


def test_a_champion_that_reads_what_the_features_no_longer_have_is_said_and_left_out(
    tiny: Tiny, stars: Both, packages: Packages, tracked: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fewer = tiny.training_frame.load().drop("price")
    assert len(reference(tiny.variant, fewer, stars[0].predictions.load(), stars[0].model, None)) == 0
    assert "reads price, which the features no longer have" in caplog.text


def test_tables_of_different_impressions_are_refused(tiny: Tiny, stars: Both) -> None:
    frame = tiny.training_frame.load()
    with pytest.raises(DataError, match="hold 90 of 180 impressions"):
        scored_rows(frame.filter(frame.impression_id % 2 == 0), stars[0].predictions.load(), None)
    for gap in (0, "x", True):
        with pytest.raises(ConfigurationError, match="session_gap_minutes"):
            account(frame, stars[0].predictions.load(), stars[0].reference.load(), gap)


def test_the_gate_refuses_a_model_trained_on_one_domains_labels_upside_down_and_says_why(
    tiny: Tiny, first: dict[str, Any], tmp_path: Path
) -> None:
    gate = {"domain_rows": 30, "pcoc_low": 0, "pcoc_high": 9}
    spoilt = replace(tiny, folder=tmp_path, encoded=tmp_path / "encoded")
    shutil.copytree(tiny.encoded, spoilt.encoded)
    label, domain = (np.load(spoilt.encoded / f"train/{name}.npy") for name in ("label", "domain"))
    search = json.loads((spoilt.encoded / "domains.json").read_text()).index("search")
    np.save(spoilt.encoded / "train/label.npy", np.where(domain == search, 1 - label, label))
    made = spoilt.train("star", 1).package(gate=gate)
    assert made["alias"] == "challenger"
    assert not made["gate"]["passed"]
    assert any(reason.startswith("AUC of the domain 'search' is") for reason in made["gate"]["reasons"])
    client = tracking.connect()
    assert client.get_model_version_by_alias(NAME, "champion").version == first["version"]
    tags = client.get_model_version(NAME, str(made["version"])).tags
    assert [tags[f"gate_reason_{n}"] for n, _ in enumerate(made["gate"]["reasons"], 1)] == made["gate"]["reasons"]


def test_the_same_model_again_is_no_worse_than_itself(stars: Both, first: dict[str, Any]) -> None:
    made = stars[0].package(gate={"domain_rows": 30, "pcoc_low": 0, "pcoc_high": 9})
    assert (made["version"], made["alias"]) == (2, "champion")


def test_the_gate_can_be_switched_off_and_says_so(
    stars: Both, first: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    assert (first["alias"], first["gate"]["passed"]) == ("champion", True)
    made = stars[1].package(gate="off")
    assert made["alias"] == "champion"
    assert "The quality gate is off" in caplog.text
    assert "off" in tracking.connect().get_model_version(NAME, str(made["version"])).tags["gate_reason_1"]


def test_a_calibrated_model_is_packaged_with_its_curves(tiny: Tiny, stars: Both, first: dict[str, Any]) -> None:
    calibrated = tiny.train("star", 1, "platt")
    frame = calibrated.predictions.load().to_pandas().set_index("impression_id")
    plain = stars[0].predictions.load().to_pandas().set_index("impression_id")["score"]
    np.testing.assert_allclose(frame["raw_score"], plain.loc[frame.index], atol=1e-12)
    assert np.abs(frame["score"] - frame["raw_score"]).max() > 1e-3
    made = calibrated.package()  # checks that the package scores as the run did
    assert made["checks"]["rows"] == 180
    scorer = registry.scorer(NAME, str(made["version"]))
    assert scorer.calibration.kind == "platt"
    told = calibrated.account["calibration"]
    assert told["after"]["pcoc"] == pytest.approx(calibrated.metrics["overall"]["pcoc"])
    assert told["before"]["pcoc"] == pytest.approx(stars[0].metrics["overall"]["pcoc"])
    assert "Calibration before and after" in (calibrated.plots / "report.html").read_text("utf-8")
    client = tracking.connect()
    assert client.get_run(made["run_id"]).data.params["calibration"] == "platt"


def test_calibration_is_fitted_on_the_validation_split_alone(tiny: Tiny, stars: Both) -> None:
    from multidomain.calibration import Calibration, logistic
    from multidomain.packaging.scorer import restore
    from multidomain.tensors import EncodedSplit
    from multidomain.training.prediction import predicted_logits

    curves = calibrate(tiny.encoded, stars[0].model, "platt", "cpu")
    rows = EncodedSplit(tiny.encoded, "validation")
    logit = predicted_logits(restore(stars[0].model), rows, "cpu")
    domain, label = np.asarray(rows.domain, dtype=np.int64), np.asarray(rows.label)
    fitted = Calibration.from_dict(curves).probabilities(logit, domain)
    alone = [number for number in range(3) if curves["curves"][number] != curves["curves"][-1]]
    parts = [domain == number for number in alone] or [domain >= 0]
    for at in parts:  # the likeliest line keeps the mean of the rows it was fitted on
        assert fitted[at].mean() == pytest.approx(label[at].mean(), abs=1e-6)
        assert not math.isclose(logistic(logit[at].astype(float)).mean(), label[at].mean(), abs_tol=1e-6)
    assert calibrate(tiny.encoded, stars[0].model, None, "cpu") == {}
    with pytest.raises(ConfigurationError, match="'plat' is not known"):
        calibrate(tiny.encoded, stars[0].model, "plat", "cpu")
