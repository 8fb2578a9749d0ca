"""What the benchmark of outages makes of a run: its messages, what is half-written, what is not as it must be."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks import cluster_runs, outages
from benchmarks.servers import HOST, Redis, Server, redis_program
from multidomain.errors import UserError
from multidomain.io.atomic import replacing, runs
from multidomain.pipeline_registry import register_pipelines

FOUND = {
    "stopped": "Redis, while views are loaded",
    "run": "kedro run --env=cluster --pipelines=materialize --only-missing-outputs",
    "expected": "fails",
    "exit": 1,
    "not_done": 0,
    "noticed": True,
    "messages": ["The online store (Redis) does not answer: Error 111 | refused.\nStart it."],
    "tracebacks": 0,
    "half_written": [],
    "again": 0,
    "then": {"check_freshness": 0},
    "half_written_after_all": [],
}


def program(text: str) -> list[str]:
    return [sys.executable, "-u", "-c", text]


def ended_process() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    assert not runs(process.pid)
    return process.pid


def test_a_message_is_what_stands_after_error_up_to_the_next_line_of_the_log():
    lines = ["12:00:01 INFO    · load", "load: 3 rows", "Error: It does not answer: refused.", "Start it."]
    after = ["26/11/23 12:00:02 ERROR Utils: shut down", "at java.base/…", "Error: Another.", "", "not of it"]
    assert outages.messages(lines) == ["It does not answer: refused.\nStart it."]
    assert outages.messages(lines + after) == ["It does not answer: refused.\nStart it.", "Another."]
    assert outages.messages(lines[:2]) == []


def test_messages_are_found_as_the_command_line_prints_them(capfd):
    UserError("Redis does not answer.\nStart it.").show()
    assert outages.messages(capfd.readouterr().err.splitlines()) == ["Redis does not answer.\nStart it."]


def test_whole_files_are_not_half_written(tmp_path):
    with replacing(tmp_path / "stage" / "table.parquet") as temporary:
        temporary.mkdir()
        pq.write_table(pa.table({"a": [1]}), temporary / "part-0.parquet")
        (temporary / "_SUCCESS").touch()
    with replacing(tmp_path / "stage" / "said.json") as temporary:
        temporary.write_text('{"a": NaN}')
    (tmp_path / "stage" / ".said.json.digest").write_text("abc")
    (tmp_path / ".registry.db.lock").touch()
    assert outages.half_written(tmp_path) == []


def test_what_a_process_that_no_longer_runs_was_writing_is_half_written_once(tmp_path):
    ended = ended_process()
    folder = tmp_path / "stage" / f".table.parquet.{ended}-0123abcd.tmp"
    (folder / "_temporary").mkdir(parents=True)
    (folder / "part-0.parquet").write_bytes(b"PAR1")
    names = [f".said.json.{ended}-0123abcd.tmp", f".feature_store.yaml.{ended}.tmp", f".model.{ended}-0123abcd.old"]
    for name in names:
        (tmp_path / name).touch()
    assert outages.half_written(tmp_path) == sorted([*names, str(folder.relative_to(tmp_path))])


def test_what_a_running_process_writes_is_in_use(tmp_path):
    with replacing(tmp_path / "said.json") as temporary:
        temporary.write_text("{")
        assert outages.half_written(tmp_path) == []


def test_files_that_cannot_be_read_and_what_spark_has_not_committed_are_half_written(tmp_path):
    pq.write_table(pa.table({"a": list(range(1000))}), tmp_path / "cut.parquet")
    os.truncate(tmp_path / "cut.parquet", 500)
    (tmp_path / "empty.parquet").touch()
    (tmp_path / "said.json").write_text('{"a": 1')
    (tmp_path / "table.parquet" / "_temporary").mkdir(parents=True)
    assert outages.half_written(tmp_path) == ["cut.parquet", "empty.parquet", "said.json", "table.parquet/_temporary"]


@pytest.mark.parametrize(
    ("changed", "fault"),
    [
        ({"not_done": 1}, "ended before"),
        ({"noticed": False}, "nothing shows"),
        ({"exit": 0, "messages": []}, "exit 0"),
        ({"expected": "ends well"}, "exit 1"),
        ({"messages": []}, "0 messages"),
        ({"messages": ["a", "b"]}, "2 messages"),
        ({"tracebacks": 1}, "traceback"),
        ({"again": 1}, "the same command"),
        ({"then": {"check_freshness": 1}}, "check_freshness"),
        ({"half_written": ["a.json"]}, "after the run: a.json"),
        ({"half_written_after_all": ["a.json"]}, "after all: a.json"),
    ],
)
def test_whatever_is_not_as_it_must_be_is_a_fault(changed, fault):
    assert outages.faults(FOUND) == []
    (found,) = outages.faults(FOUND | changed)
    assert fault in found


def test_the_table_has_a_row_for_each_outage_and_the_whole_messages_below():
    well = {"stopped": "a worker", "expected": "ends well", "exit": 0, "messages": [], "again": None, "then": {}}
    wrong = {"half_written": ["a", "b"], "half_written_after_all": ["b"], "faults": ["half-written after the run"]}
    lines = [FOUND | {"faults": []}, FOUND | well | wrong]
    head = {"date": "2026-01-01", "cores": 2, "revision": "abc", "command": "python -m …", "share": 0.1}
    text = outages.markdown({**head, "outages": lines})
    rows = [line for line in text.splitlines() if line.startswith("|")][2:]
    assert rows == [
        "| Redis, while views are loaded | failed (exit 1) | `The online store (Redis) does not answer` … "
        "| exit 0, then `check_freshness`: exit 0 | 0 |",
        "| a worker | went on and ended well (exit 0) | none | not needed | 2 |",
    ]
    assert "```text\nThe online store (Redis) does not answer: Error 111 | refused.\nStart it.\n```" in text
    assert "- a worker: half-written after the run" in text


def test_actions_follow_their_line_in_order_while_the_run_goes_on(tmp_path):
    flags = {name: tmp_path / name for name in ("killed", "back")}
    text = (
        "import os, time\nprint('begun')\n"
        f"while not os.path.exists({str(flags['back'])!r}): time.sleep(0.02)\n"
        f"print('over', os.path.exists({str(flags['killed'])!r}))"
    )
    actions = [(0.1, flags["killed"].touch), (0.3, flags["back"].touch)]
    run = cluster_runs.followed(program(text), tmp_path / "log", environment=os.environ, at="beg", actions=actions)
    assert (run.code, run.lines, run.left) == (0, ["begun", "over True"], 0)
    assert (tmp_path / "log").read_text() == "begun\nover True\n"


def test_actions_of_a_line_that_never_comes_or_that_were_not_due_are_told(tmp_path):
    actions = [(0.0, lambda: None), (60.0, lambda: None)]
    text = "import time\nprint('begun')\ntime.sleep(0.5)\nraise SystemExit(3)"
    for at, left in (("begun", 1), ("never", 2)):
        run = cluster_runs.followed(program(text), tmp_path / "log", environment=os.environ, at=at, actions=actions)
        assert (run.code, run.left) == (3, left)


def test_a_run_ends_with_all_that_it_started_when_an_action_fails(tmp_path):
    text = (
        "import subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(300)'])\n"
        "print(child.pid)\nprint('begun')\ntime.sleep(300)"
    )

    def fails() -> None:
        raise OSError("a server did not come back")

    with pytest.raises(OSError, match="did not come back"):
        cluster_runs.followed(
            program(text), tmp_path / "log", environment=os.environ, at="begun", actions=[(0.0, fails)]
        )
    child = int((tmp_path / "log").read_text().split()[0])
    until = time.monotonic() + 10
    while _alive(child) and time.monotonic() < until:
        time.sleep(0.05)
    assert not _alive(child)


def _alive(process: int) -> bool:
    """Whether it runs: not when it is over and waits for somebody to ask how."""
    try:
        state = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def test_a_server_of_the_cluster_comes_back_where_it_was_with_what_it_kept(tmp_path):
    try:
        redis_program()
    except FileNotFoundError as error:
        pytest.skip(str(error))
    server = Redis(tmp_path, kept=True)
    cluster = cluster_runs.Cluster({"redis": server}, {})
    try:
        cluster.start()
        assert asked(server, "SET a 1") == "+OK"
        cluster.kill(["redis"])
        assert not server.answers()
        cluster.start()
        cluster.start()  # what is up stays as it is
        assert asked(server, "GET a") == "$1"
    finally:
        cluster.stop()
    assert not server.answers()


def asked(server: Redis, what: str) -> str:
    """The first line of its answer."""
    with socket.create_connection((HOST, server.port), timeout=5) as connected:
        connected.sendall(f"{what}\r\n".encode())
        return connected.recv(100).decode().splitlines()[0]


def test_a_server_that_does_not_come_up_says_why_and_is_not_left(tmp_path):
    class Broken(Server):
        name = "broken"

        def command(self):
            return program("raise SystemExit('no such option')"), dict(os.environ)

    with pytest.raises(RuntimeError, match=r"(?s)broken does not answer.*no such option"):
        Broken(tmp_path).start()


def test_the_lines_that_outages_wait_for_name_nodes_and_pipelines_there_are():
    pipelines = register_pipelines()
    for outage in outages.OUTAGES.values():
        nodes = {f"· {node.name.replace('_', ' ')}" for node in pipelines[outage.pipeline].nodes}
        assert outage.at in nodes or not outage.at.startswith("·"), outage.at
        assert set(outage.then) <= set(pipelines)
        assert set(outage.back) <= set(outage.servers)
