from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from multidomain import tracking


def test_settings_are_flattened_with_dots() -> None:
    assert dict(tracking.flat({"model": {"hidden": [2, 1], "norm": {"kind": "pn"}}, "seed": 1, "none": {}})) == {
        "model.hidden": [2, 1],
        "model.norm.kind": "pn",
        "seed": 1,
        "none": {},
    }


def test_names_are_what_mlflow_takes() -> None:
    assert (
        tracking.model_name("movielens/age-random-full-click", "star")
        == "multidomain-movielens-age-random-full-click-star"
    )
    assert tracking.metric_name("domain", "F/25×é", "auc") == "domain/F_25__/auc"
    assert len(tracking.metric_name("x" * 400)) == 250


def test_a_fingerprint_depends_on_names_and_contents_alone(tmp_path: Path) -> None:
    def place(name: str, files: dict[str, bytes]) -> Path:
        folder = tmp_path / name / "data"
        folder.mkdir(parents=True)
        for file, content in files.items():
            (folder / file).write_bytes(content)
        return folder

    one = tracking.fingerprint(place("one", {"a": b"12", "b": b"3"}))
    assert one == tracking.fingerprint(place("same", {"b": b"3", "a": b"12"}))
    others = [{"a": b"12", "b": b"4"}, {"a": b"1", "b": b"23"}, {"a": b"12", "c": b"3"}, {"a": b"12"}]
    assert one not in {tracking.fingerprint(place(f"other{n}", files)) for n, files in enumerate(others)}


def test_the_git_revision_says_when_files_differ_from_it(tmp_path: Path) -> None:
    assert tracking.git_revision(tmp_path) == "none"

    def git(*arguments: str) -> None:
        identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
        subprocess.run(["git", "-C", str(tmp_path), *identity, *arguments], check=True, capture_output=True)

    git("init")
    (tmp_path / "file").write_text("1")
    git("add", "file")
    git("commit", "-m", "one")
    clean = tracking.git_revision(tmp_path)
    assert len(clean) == 40
    (tmp_path / "file").write_text("2")
    assert tracking.git_revision(tmp_path) == clean + "-dirty"


def test_the_store_follows_the_data_folder_unless_an_address_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("MULTIDOMAIN_DATA", str(tmp_path))
    assert tracking.store() == f"sqlite:///{tmp_path}/mlflow/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://tracking.example:5000")
    assert tracking.store() == "http://tracking.example:5000"


def test_another_data_folder_has_a_registry_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow leaves the first registry's address in the environment."""
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MULTIDOMAIN_DATA", str(tmp_path / "one"))
    tracking.connect().create_registered_model("model")
    monkeypatch.setenv("MULTIDOMAIN_DATA", str(tmp_path / "two"))
    assert tracking.connect().search_registered_models() == []


def test_a_given_address_holds_however_often_it_is_asked_for(monkeypatch, tmp_path):
    monkeypatch.setenv("MULTIDOMAIN_DATA", str(tmp_path / "data"))
    address = f"sqlite:///{tmp_path / 'elsewhere.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    for _ in range(2):
        tracking.connect()
        assert tracking.store() == address


def test_a_server_that_is_not_there_is_not_taken_for_one_without_a_champion(monkeypatch):
    from mlflow.exceptions import MlflowException

    from multidomain.packaging import champion

    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    with pytest.raises(MlflowException):
        champion.current("none/at-all", "star")
