"""What a run on a cluster does when a server that it needs is killed, and whether the same command then completes.

    python -m benchmarks.outages --folder /somewhere/new

starts a Spark of a master and two workers, a Redis and an MLflow server, all of its own and on this machine; runs
``kedro run --env=cluster`` once for each of ``OUTAGES``; kills (SIGKILL) what that one names when the run has printed a
certain line; and starts it again, while the run goes on or after it. A run that fails must say so in one message
without a traceback, and the same command must then exit with 0. After each run the data folder is searched for
anything half-written. ``--only mlflow redis`` tries these alone. The exit status is 1 where something else happened.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from multidomain.io import atomic

from . import measure
from .cluster_runs import PROJECT, Action, Runs, clustered, command
from .measure import RESULTS, Figures
from .servers import redis_program

ERROR = "Error: "  # what every message of an error begins with
LOGGED = re.compile(r"\d\d[:/]\d\d[:/]\d\d ")  # a line of the log, ours or Spark's
# What io/atomic.py and features/repository.py call what is not whole: the name to come, and the process that writes it.
TEMPORARY = re.compile(r"\..+\.(\d+)(?:-[0-9a-f]{8})?\.(?:tmp|old)")
SPARKS_OWN = "_temporary"  # where Spark writes parts of a table that it has not committed


@dataclass(frozen=True, kw_only=True)
class Outage:
    """One outage.

    Attributes:
        stopped: what, when and for how long, in words.
        pipeline: the run that meets it.
        at: part of the line of the run's output after which the servers are killed …
        after: … so many seconds later.
        servers: their names in :class:`Cluster`.
        back: those that come back while the run goes on; the others do after it.
        seconds: from the kill until then.
        noticed: part of a line that shows that the run met the outage: that it did not come too late.
        fails: whether the run must fail. Otherwise it must end well.
        prepared: the run finds what ``prepare`` makes, made before without any outage.
        then: pipelines that must end well after all.
        environment: more variables of the run.
    """

    stopped: str
    pipeline: str
    at: str
    after: float
    servers: tuple[str, ...]
    back: tuple[str, ...] = ()
    seconds: float = 0.0
    noticed: str
    fails: bool = False
    prepared: bool = False
    then: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)


OUTAGES = {
    "one_spark_worker": Outage(
        stopped="one of two Spark workers, while views are made",
        pipeline="prepare",
        at="· build feature views",
        after=3,
        servers=("worker 1",),
        noticed="Lost executor",
    ),
    "both_spark_workers": Outage(
        stopped="both Spark workers, while views are made; one back after 40 s",
        pipeline="prepare",
        at="· build feature views",
        after=3,
        servers=("worker 1", "worker 2"),
        back=("worker 1",),
        seconds=40,
        noticed="Lost executor",
    ),
    "mlflow": Outage(
        stopped="MLflow's server, while the model is packaged; not back in time (3 retries instead of MLflow's 7)",
        pipeline="train_star",
        at="· star.package",
        after=0,
        servers=("mlflow",),
        noticed="Retrying",
        fails=True,
        prepared=True,
        environment={"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3"},
    ),
    "mlflow_back": Outage(
        stopped="MLflow's server, while the model is packaged; back after 30 s",
        pipeline="train_dnn",
        at="· dnn.package",
        after=1,
        servers=("mlflow",),
        back=("mlflow",),
        seconds=30,
        noticed="Retrying",
        prepared=True,
    ),
    "redis": Outage(
        stopped="Redis, while views are loaded into it; not back",
        pipeline="materialize",
        at="item_counts: from",
        after=0.3,
        servers=("redis",),
        noticed="does not answer",
        fails=True,
        prepared=True,
        then=("check_freshness",),
    ),
}


def main() -> None:
    """Try each, tell."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.outages", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--folder", type=Path, required=True, help="a new one: data, logs and what the servers keep")
    names = list(OUTAGES)
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="NAME", help=", ".join(names))
    parser.add_argument("--raw", type=Path, default=PROJECT / "data/01_raw", help="the raw files")
    parser.add_argument("--share", type=float, default=0.1, help="of the users (0.1)")
    parser.add_argument("--save", action="store_true", help="keep the table in benchmarks/results")
    given = parser.parse_args()
    if given.folder.exists() and any(given.folder.iterdir()):
        parser.error(f"--folder: {given.folder} is not empty, and an outage is to meet a run that finds nothing made")
    try:
        redis_program()
    except FileNotFoundError as error:
        parser.error(str(error))
    signal.signal(signal.SIGTERM, _terminated)
    content: Figures = {
        "date": date.today().isoformat(),
        "cores": os.cpu_count(),
        "revision": measure.revision(PROJECT),
        "command": measure.command(),
        "share": given.share,
        "outages": tried(given.only, given.folder.resolve(), raw=given.raw.resolve(), share=given.share),
    }
    text = markdown(content)
    print(text)
    if given.save:
        (RESULTS / "outages.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        (RESULTS / "outages.md").write_text(text, encoding="utf-8")
    sys.exit(1 if any(line["faults"] for line in content["outages"]) else 0)


def _terminated(*_: Any) -> None:
    """SIGTERM ends the servers and the run as Ctrl-C does."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise SystemExit(143)


# --- a run and its outage ----------------------------------------------------------------------------------------


def tried(names: Sequence[str], folder: Path, *, raw: Path, share: float) -> list[Figures]:
    """Each outage and what came of it."""
    settings = {"raw_folder": raw, "sample_share": share, "star.training.epochs": 1, "dnn.training.epochs": 1}
    parameters = ",".join(f"{name}={value}" for name, value in settings.items())
    found: list[Figures] = []
    with clustered(folder / "servers") as cluster:
        undisturbed = Runs(
            cluster=cluster, parameters=parameters, data=folder / "prepared" / "data", logs=folder / "prepared"
        )
        if any(OUTAGES[name].prepared for name in names):
            print("what trainings and the online store need", flush=True)
            cluster.start()
            if undisturbed.run("prepare", "prepare").code:
                raise RuntimeError(f"prepare failed without any outage: see {undisturbed.logs}/prepare.log")
        for number, name in enumerate(names, start=1):
            outage, kept = OUTAGES[name], folder / name
            print(f"{number} of {len(names)}: {outage.stopped}", flush=True)
            data = undisturbed.data if outage.prepared else kept / "data"
            runs = Runs(cluster=cluster, parameters=parameters, data=data, logs=kept, environment=outage.environment)
            found.append({"name": name, **met(outage, runs)})
            for fault in found[-1]["faults"]:
                print(f"   NOT AS IT MUST BE: {fault}", flush=True)
    return found


def met(outage: Outage, runs: Runs) -> Figures:
    """Let a run meet an outage, then do what its user would do."""
    cluster, data = runs.cluster, runs.data
    cluster.start()
    actions: list[Action] = [(outage.after, lambda: cluster.kill(outage.servers))]
    if outage.back:
        actions.append((outage.after + outage.seconds, lambda: cluster.start(outage.back)))
    first = runs.run(outage.pipeline, "run", at=outage.at, actions=actions)
    content: Figures = {
        "stopped": outage.stopped,
        "run": " ".join(command(outage.pipeline)),
        "expected": "fails" if outage.fails else "ends well",
        "exit": first.code,
        "not_done": first.left,
        "noticed": any(outage.noticed in line for line in first.lines),
        "messages": [one.replace(str(data), "…") for one in messages(first.lines)],
        "tracebacks": sum(line.startswith("Traceback (most recent call last)") for line in first.lines),
        "half_written": half_written(data),
        "again": None,
        "then": {},
    }
    cluster.start()
    if first.code:
        content["again"] = runs.run(outage.pipeline, "again").code
    for pipeline in outage.then:
        content["then"][pipeline] = runs.run(pipeline, pipeline).code
    content["half_written_after_all"] = half_written(data)
    return content | {"faults": faults(content)}


# --- what came of it ---------------------------------------------------------------------------------------------


def messages(lines: Sequence[str]) -> list[str]:
    """What a run said to its user as errors, each with the lines that belong to it."""
    found: list[str] = []
    inside = False
    for line in lines:
        if line.startswith(ERROR):
            found.append(line.removeprefix(ERROR))
            inside = True
        elif LOGGED.match(line) or not line.strip():
            inside = False
        elif inside:
            found[-1] += f"\n{line}"
    return found


def half_written(folder: Path) -> list[str]:
    """What is not whole in a data folder, each path relative to it.

    That is what has the temporary name of a process that no longer runs, what Spark has not committed, and every JSON
    and Parquet file that has its name but cannot be read.
    """
    found: list[Path] = []
    for path in sorted(folder.rglob("*")):
        if not any(part in found for part in path.parents) and _is_half(path):
            found.append(path)
    return [str(path.relative_to(folder)) for path in found]


def _is_half(path: Path) -> bool:
    if named := TEMPORARY.fullmatch(path.name):
        return not atomic.runs(int(named[1]))
    if path.name == SPARKS_OWN:
        return True
    try:
        if path.suffix == ".json" and path.is_file():
            json.loads(path.read_bytes())
        if path.suffix == ".parquet" and path.is_file():
            pq.read_metadata(path)
    except (ValueError, pa.ArrowException):
        return True
    return False


def faults(content: Figures) -> list[str]:
    """What is not as it must be."""
    found = []
    if content["not_done"]:
        found.append("the run had ended before all of the outage had taken place")
    if not content["noticed"]:
        found.append("nothing shows that the run met the outage")
    if (content["exit"] != 0) != (content["expected"] == "fails"):
        found.append(f"the run ended with exit {content['exit']}")
    if content["exit"] and len(content["messages"]) != 1:
        found.append(f"the run failed with {len(content['messages'])} messages instead of one")
    if content["tracebacks"]:
        found.append("the run printed a traceback")
    if content["again"]:
        found.append(f"the same command ended with exit {content['again']}")
    found += [f"{name} ended with exit {code}" for name, code in content["then"].items() if code]
    for key, when in (("half_written", "after the run"), ("half_written_after_all", "after all")):
        if content[key]:
            found.append(f"half-written {when}: {', '.join(content[key])}")
    return found


def markdown(content: Figures) -> str:
    """All of it as a page."""
    lines = [
        "# Servers killed during a run",
        "",
        f"{content['date']}, {content['cores']} shared cores: standalone Spark with two workers of one core, Redis and "
        f"MLflow's server on one machine, {content['share']:g} of MovieLens' users, one epoch, each outage once. "
        f"Revision {content['revision']}: `{content['command']}`. The same command again: with the servers back.",
        "",
        "| stopped with SIGKILL | what the run did | message | the same command again | half-written files |",
        "|---|---|---|---|---|",
    ]
    for line in content["outages"]:
        cells = [line["stopped"], _ended(line), _told(line), _again(line), str(_left(line))]
        lines.append(f"| {' | '.join(cell.replace('|', '¦') for cell in cells)} |")
    for line in content["outages"]:
        if line["messages"]:
            said = [part.rstrip() for one in line["messages"] for part in one.splitlines()]
            lines += ["", f"`{line['run']}` said:", "", "```text", *said, "```"]
    if wrong := [f"- {line['stopped']}: {fault}" for line in content["outages"] for fault in line["faults"]]:
        lines += ["", "Not as it must be:", "", *wrong]
    return "\n".join(lines) + "\n"


def _ended(line: Figures) -> str:
    return f"failed (exit {line['exit']})" if line["exit"] else "went on and ended well (exit 0)"


def _told(line: Figures) -> str:
    """The first clause of each message."""
    clauses = [f"`{one.split(': ')[0].splitlines()[0]}` …" for one in line["messages"]]
    return ", ".join(clauses) + (", and a traceback" if line["tracebacks"] else "") or "none"


def _again(line: Figures) -> str:
    parts = [] if line["again"] is None else [f"exit {line['again']}"]
    parts += [f"then `{name}`: exit {code}" for name, code in line["then"].items()]
    return ", ".join(parts) or "not needed"


def _left(line: Figures) -> int:
    return len({*line["half_written"], *line["half_written_after_all"]})


if __name__ == "__main__":
    main()
