"""Seconds of nodes, from a log; seconds of stages, from nodes."""

import pytest

from benchmarks import stages
from benchmarks.nodes import Watched, kedro_run


def test_a_node_lasts_until_the_next_begins():
    run = Watched()
    run.ended(100.0)
    run.nodes.clear()
    run.saw(10, 5, 0.5)
    run.read("[11/22/26 20:00:00] INFO     data set movielens, variant x\n", 101.0)
    run.saw(20, 5, 1.5)
    run.read("                    INFO     · read log\n", 103.0)
    run.saw(200, 5, 4.0)
    run.read("                    INFO     · encode", 110.0)
    run.saw(50, 60, 5.0)
    run.ended(111.0)
    assert run.nodes == {
        "start": {"seconds": 3.0, "cpu": 1.5, "peak_mib": 20},
        "read log": {"seconds": 7.0, "cpu": 2.5, "peak_mib": 200},
        "encode": {"seconds": 1.0, "cpu": 1.0, "peak_mib": 50},
    }
    assert (run.peak_mib, run.anonymous_mib) == (200, 60)


def test_a_stage_is_the_sum_of_its_nodes(head):
    nodes = {
        "start": {"seconds": 2.0, "cpu": 1.0, "peak_mib": 10},
        "fit encoder": {"seconds": 3.0, "cpu": 2.0, "peak_mib": 30},
        "encode": {"seconds": 5.0, "cpu": 1.0, "peak_mib": 20},
    }
    content = {
        "runs": [{"seconds": 10.0, "nodes": nodes}],
        "stages": {"fit encoder": "encode", "encode": "encode"},
        "head": head,
    }
    assert stages.markdown(content)[-5:] == [
        "| **start** | 2.0 | 1.0 | 20% | 10 MiB |",
        "| **encode** | 8.0 | 3.0 | 80% | 30 MiB |",
        "| fit encoder | 3.0 | 2.0 | 30% | 30 MiB |",
        "| encode | 5.0 | 1.0 | 50% | 20 MiB |",
        "| **all** | 10.0 | 4.0 | 100% | 30 MiB |",
    ]


def test_every_node_of_the_default_pipeline_has_a_stage():
    found = stages.stages()
    assert found["read log"] == "ingest"
    assert found["join training frame"] == "features"
    assert found["star.evaluate"] == "evaluate"


@pytest.mark.parametrize(
    ("options", "asked"),
    [
        ([], []),
        (["--params", "domain=genre"], ["--params=domain=genre"]),
        (["--env", "smoke", "--pipeline", "train_dnn"], ["--pipeline=train_dnn", "--env=smoke"]),
    ],
)
def test_the_run_is_given_what_was_asked_for(options, asked):
    assert stages.asked(stages.arguments(options)) == asked


@pytest.mark.slow
def test_a_run_is_watched_node_by_node(quick, monkeypatch):
    few = ("--env=smoke", "--params=dataset=simulated", "--nodes=locate_files,read_log")
    monkeypatch.setattr(stages, "QUICK", few)
    content, text = quick("stages")
    nodes = content["runs"][0]["nodes"]
    assert list(nodes) == ["start", "locate files", "read log"]
    assert nodes["read log"]["seconds"] > 0
    assert nodes["read log"]["peak_mib"] > 50
    assert "| **ingest** |" in text


def test_a_run_that_fails_ends_the_benchmark(tmp_path):
    with pytest.raises(SystemExit, match="kedro run --pipeline=nothing failed with"):
        kedro_run(Watched(), ["--pipeline=nothing"], tmp_path)
