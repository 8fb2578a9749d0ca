"""The service asked from another process."""

import datetime as dt
import os

import pytest
from feature_oracle import DAY, START
from served_log import promote, register
from small_ranker import loaded

AT = dt.datetime.fromtimestamp((START + 2.5 * DAY) / 1e6, dt.UTC)


def test_it_runs_in_the_smallest_setting(quick, tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("MULTIDOMAIN_SCHEMAS", str(tmp_path))
    with loaded(tmp_path, AT) as small:
        promote(small, register(small, 1))
        frame = small.folder / "data/04_feature" / small.variant.key / "training_frame.parquet"
        frame.parent.mkdir(parents=True, exist_ok=True)
        os.link(small.frame, frame)
        monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)  # MLflow writes it
        options = ["--dataset", "small", "--architecture", "dnn", "--candidates", "3", "--connections", "1", "2"]
        content, text = quick("service", *options, "--soak", "0.02")
    assert [line["connections"] for line in content["runs"]] == [1, 2]
    assert all(line["requests"] > 0 and line["failed"] == line["degraded"] == 0 for line in content["runs"])
    assert min(mib for _, mib in content["soak"]["memory"]) > 10
    assert "requests/s" in text
    assert "Memory of the service" in text


@pytest.fixture(autouse=True)
def _quiet(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
