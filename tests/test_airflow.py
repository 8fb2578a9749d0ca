"""The daily cycle as a DAG: every node is in one stage, and Airflow runs it, where there is one."""

from __future__ import annotations

import ast
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import daily_log
import pytest
from places import PROJECT

from multidomain.pipeline_registry import register_pipelines

AIRFLOW = os.environ.get("MULTIDOMAIN_AIRFLOW")


def create(folder: Path, pipeline: str, *options: str) -> Path:
    """The DAG that ``make airflow`` writes."""
    command = ["kedro", "airflow", "create", f"--pipelines={pipeline}", "--jinja-file=conf/base/airflow_dag.j2"]
    command = [sys.executable, "-m", *command, f"--target-dir={folder}", *options]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    [path] = folder.glob("*.py")
    return path


def constants(path: Path) -> dict[str, str]:
    """What the file gives its names in capitals."""
    found = {}
    for line in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(line, ast.Assign):
            found[line.targets[0].id] = eval(compile(ast.Expression(line.value), str(path), "eval"))
    return found


@pytest.fixture(scope="module")
def dag(tmp_path_factory) -> dict[str, str]:
    return constants(create(tmp_path_factory.mktemp("dags"), "daily_hierrec"))


def test_every_node_is_in_one_stage_after_those_it_needs(dag):
    whole = register_pipelines()["daily_hierrec"]
    stages = [whole.only_nodes_with_tags(stage) for stage in dag["STAGES"]]
    assert sorted(node.name for stage in stages for node in stage.nodes) == sorted(node.name for node in whole.nodes)
    made: set[str] = set()
    for stage in stages:
        assert not (stage.inputs() & whole.all_outputs()) - made
        made |= stage.all_outputs()


def test_the_tasks_ask_for_the_day_and_start_from_the_one_before(dag):
    assert dag["RUN"] == ".venv/bin/kedro run --pipeline=daily_hierrec"
    assert dag["PROJECT"] == str(PROJECT)
    assert dag["PARAMETERS"] == (
        "window.until={{ data_interval_start | ds }},window.days=1,window.lookback=30,warm_start=previous"
    )


def test_parameters_of_any_kind_are_written_as_the_command_line_takes_them(tmp_path):
    given = "parameters.dataset=daily,parameters.window.lookback=null,parameters.a.b=true,project=/srv/it's here"
    found = constants(create(tmp_path, "daily_dnn", "--env=cluster", f"--params={given}"))
    assert found["PARAMETERS"].split(",", 1)[1] == "dataset=daily,window.lookback=null,a.b=true"
    assert found["PROJECT"] == "/srv/it's here"
    assert found["RUN"] == ".venv/bin/kedro run --env=cluster --pipeline=daily_dnn"


@pytest.mark.slow
@pytest.mark.skipif(not AIRFLOW, reason="Airflow is not here: make test-airflow")
def test_airflow_runs_day_after_day_and_a_day_again(tmp_path):
    daily_log.schema(tmp_path)
    daily_log.arrive(tmp_path / "raw", 0, 1, 2)
    options = {
        "dataset": "daily",
        "raw_folder": tmp_path / "raw",
        "window.lookback": 5,
        "window.days": 1,
        "warm_start": "previous",
        "gate.pcoc_low": 0,
        "gate.pcoc_high": 10,
        "dnn.training.epochs": 1,
        "dnn.training.batch_size": 64,
    }
    parameters = ",".join(f"parameters.{name}={value}" for name, value in options.items())
    kedro = shlex.join([sys.executable, "-m", "kedro"])
    create(tmp_path / "home" / "dags", "daily_dnn", f"--params=kedro={kedro},retries=0,{parameters}")
    environment = {
        **os.environ,
        "AIRFLOW_HOME": str(tmp_path / "home"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "MULTIDOMAIN_SCHEMAS": str(tmp_path),
        "MULTIDOMAIN_DATA": str(tmp_path / "data"),
        "OMP_NUM_THREADS": "1",
    }

    def airflow(*arguments: str) -> str:
        done = subprocess.run(
            [AIRFLOW, *arguments], env=environment, capture_output=True, text=True, timeout=1500, check=False
        )
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return done.stdout + done.stderr

    airflow("db", "migrate")
    report = tmp_path / "data/08_reporting/daily/place-time-full-click"
    packages = []
    for number in (1, 2, 2):  # the last a second time
        day = daily_log.day(number + 1)  # the day after, at the hour of the schedule
        said = airflow("dags", "test", "multidomain_daily_dnn", f"{day}T03:00:00+00:00")
        assert "state=success" in said or "success" in said
        packages.append(json.loads((report / "dnn/package.json").read_text()))
        until = json.loads((report.parent / "ingest.json").read_text())["window"]["until"]
        assert until == str(daily_log.day(number))
    assert [package["version"] for package in packages] == [1, 2, 2]
    assert packages[1] == packages[2]
