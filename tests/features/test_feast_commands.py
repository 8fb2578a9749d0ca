"""Feast's own command line on a registered variant, as a person types it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote
from urllib.request import urlopen

import pytest
import yaml
from click.testing import CliRunner
from feast import FeatureView
from feature_oracle import Bench, log, small_schema
from places import PROJECT
from servers import free_port, wait

from multidomain.features import definitions, repository
from multidomain.features.materialize import materialize

FEAST = [str(Path(sys.executable).with_name("feast")), "-c", str(PROJECT / "feature_repo")]


class Commands:
    """``feast`` on the small log."""

    def __init__(self, folder: Path) -> None:
        self.bench = Bench(folder, small_schema(folder).variant())
        self.bench.views = repository.views_folder(self.bench.variant)
        self.bench.build(log(1, rows=40))
        self.registered = repository.apply(self.bench.variant, self.bench.views)
        self.command = [*FEAST, "-f", self.registered["configuration"]]
        variant = {"MULTIDOMAIN_DATASET": "small", "MULTIDOMAIN_VARIANT": self.bench.variant.name}
        self.environment = {**os.environ, "MULTIDOMAIN_SCHEMAS": str(folder), **variant}

    def here(self, *arguments: str) -> str:
        """What a command prints that runs no code of the repository: in this process, which has Feast already."""
        from feast.cli.cli import cli

        return CliRunner().invoke(cli, [*self.command[1:], *arguments], catch_exceptions=False).stdout

    def typed(self, *arguments: str) -> None:
        """As a process of its own."""
        done = subprocess.run(
            [*self.command, *arguments], env=self.environment, capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 0, done.stderr[-3000:]

    def online(self) -> list[tuple[Any, ...]]:
        """Every row of the online store."""
        with contextlib.closing(sqlite3.connect(self.registered["online_store"])) as connection:
            tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name").fetchall()
            select = 'SELECT * FROM "{}" ORDER BY entity_key, feature_name'
            return [(name, *row) for (name,) in tables for row in connection.execute(select.format(name))]


@pytest.fixture(scope="module")
def feast(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Commands]:
    folder = tmp_path_factory.mktemp("commands")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MULTIDOMAIN_DATA", str(folder / "data"))
        yield Commands(folder)


def planned(feast: Commands) -> list[FeatureView]:
    """The views of the schema."""
    objects = definitions.objects(feast.bench.variant, feast.bench.views)
    return [thing for thing in objects if isinstance(thing, FeatureView)]


def registered(feast: Commands) -> dict[str, dict[str, Any]]:
    """What the registry holds of the variant, and what it remembers of its own."""
    store, _ = repository.service(feast.bench.variant)
    views, made = store.list_feature_views(), store.list_on_demand_feature_views()
    lists = (store.list_entities(), store.list_data_sources(), views, made, store.list_feature_services())
    return {
        "objects": {f"{type(thing).__name__} {thing.name}": thing for found in lists for thing in found},
        "materialized": {view.name: view.materialization_intervals for view in views},
        "created": {view.name: view.created_timestamp for view in views},
    }


def test_views_are_listed_and_described(feast):
    listed = feast.here("feature-views", "list")
    for view in planned(feast):
        assert re.search(rf"^{view.name} .*FeatureView", listed, re.MULTILINE), view.name
    said = yaml.safe_load(feast.here("feature-views", "describe", "user_counts"))["spec"]
    assert said["description"].startswith("Impressions and positive rate (all rows) after each instant")
    assert said["owner"] == "multidomain"
    assert said["tags"]["event_time"] == "instant + 1 microsecond"


def test_feast_apply_after_the_pipeline_and_again_changes_nothing(feast):
    """But for Feast's stamps of when it was applied: it writes them anew for any online store of one's own."""
    materialize(feast.bench.variant)
    before = registered(feast), feast.online()
    assert before[0]["materialized"]["user_counts"]
    assert before[1]
    for _ in range(2):
        feast.typed("apply", "--no-progress")
        assert (registered(feast), feast.online()) == before


# --- the web page ----------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def serving(command: list[str], environment: dict[str, str], report: Path) -> Iterator[str]:
    """``feast ui`` on a free port, until the end of the block; its address."""
    port = free_port()
    place = ["ui", "--host", "127.0.0.1", "--port", str(port)]
    with report.open("w") as output:
        running = subprocess.Popen([*command, *place], env=environment, stdout=output, stderr=subprocess.STDOUT)
    try:
        wait(port, running, report, seconds=120)
        yield f"http://127.0.0.1:{port}"
    finally:
        running.send_signal(signal.SIGINT)
        running.wait(timeout=30)
    assert "Finished server process" in report.read_text()
    with socket.socket() as left:
        assert left.connect_ex(("127.0.0.1", port)) != 0


def fetched(url: str) -> str:
    with urlopen(url, timeout=30) as answer:
        assert answer.status == 200
        return answer.read().decode()


def test_feast_ui_shows_the_views_with_what_they_are(feast, tmp_path):
    project = feast.bench.variant.project
    with serving(feast.command, feast.environment, tmp_path / "ui.log") as address:
        page = fetched(f"{address}/p/{project}/feature-view")
        parts = re.findall(r'(?:src|href)="(/static/[^"]+)"', page)
        assert "<title>Feast Feature Store</title>" in page
        assert {Path(part).suffix for part in parts} == {".js", ".css"}  # from this server: no network is needed
        for part in parts:
            assert fetched(address + part)
        (listed,) = json.loads(fetched(f"{address}/projects-list.json"))["projects"]
        api = address + listed["registryPath"]
        asked = f"{api}/feature_views?project={quote(project)}&include_relationships=true"  # as the page asks
        shown = {view["spec"]["name"]: view["spec"] for view in json.loads(fetched(asked))["featureViews"]}
    assert listed["id"] == project
    assert "Domain place, split user_time, label click." in listed["description"]
    assert set(shown) >= {view.name for view in planned(feast)}
    for view in planned(feast):
        spec: dict[str, Any] = shown[view.name]
        assert spec["description"] == view.description
        assert spec["owner"] == "multidomain"
        assert spec["tags"]["event_time"] == view.tags["event_time"]
        assert {f["name"]: f["description"] for f in spec["features"] if "description" in f} == {
            f.name: f.description for f in view.features if f.description
        }
