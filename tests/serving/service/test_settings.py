"""Options of the service: of a file, of the command line, and held to what they may be."""

import pytest

from multidomain.errors import ConfigurationError
from multidomain.serving.service import logs, settings
from multidomain.serving.service.__main__ import main, parser


def test_the_projects_own_are_whole_and_the_command_line_goes_before_them():
    given = parser().parse_args(["--port", "8080", "--store-timeout-seconds", "1", "--architecture", "dnn"])
    found = settings.load(settings.given(given))
    assert (found.port, found.store_timeout_seconds, found.alias) == (8080, 1, "champion")


def test_a_folder_of_ones_own_goes_before_the_base(tmp_path):
    from multidomain.schema import project_root

    (tmp_path / "parameters").mkdir()
    (tmp_path / "parameters/serve.yml").write_text("service: {queue: 3}")
    assert settings.load(folders=[project_root() / "conf/base", tmp_path]).queue == 3


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"qeue": 3}, "did you mean 'queue'"),
        ({"queue": 0}, "service.queue must be a whole number from 1 up, got 0"),
        ({"queue": 1.5}, "whole number"),
        ({"port": 70000}, "at most 65535"),
        ({"timeout_seconds": float("nan")}, "service.timeout_seconds must be a number"),
        ({"alias": ""}, "service.alias must be a text"),
        ({"readers": True}, "service.readers"),
    ],
)
def test_a_wrong_option_is_refused_by_name(changed, told):
    with pytest.raises(ConfigurationError, match=told):
        settings.load(changed)


def test_without_a_model_the_service_says_how_to_train_one(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MULTIDOMAIN_DATA", str(tmp_path))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(logs, "start", lambda: None)  # the other tests' logging stays as it is
    assert main(["--dataset", "movielens", "--architecture", "star"]) == 1
    assert "kedro run --pipeline=train_star" in capsys.readouterr().err
