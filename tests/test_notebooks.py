"""Every notebook runs from its first cell to its last on what a run of ``train_star`` leaves, and is stored unrun."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pandas as pd
import pytest
from nbclient import NotebookClient
from places import PROJECT

NOTEBOOKS = PROJECT / "notebooks"
NAMES = sorted(path.stem for path in NOTEBOOKS.glob("*.ipynb"))
SCHEMA = """
source: table
files: {log: clicks.csv}
roles: {user: who, item: ad, timestamp: at}
labels: {click: clicked}
domains: {page: {column: page, minimum: 20}}
features:
  who: user
  ad: item
  kind: item
  device: context
history: {clicks: {fields: {ad: ad, kind: kind}, length: 5}}
counts: [user, item, domain]
"""
TOLD = {  # what the tests ask a notebook when it has ended
    "02_online": [
        """
import json

found = {
    "clicked": clicked,
    "changed": changed,
    "history": [known["clicks_ad"], known_after["clicks_ad"]],
    "count": [known["user_count"], known_after["user_count"]],
    "rate": [known["user_rate"], known_after["user_rate"]],
    "orders": [(before.items, before.scores), (after.items, after.scores)],
    "scratch": store.config.online_store.path,
}
print(json.dumps(found))
"""
    ]
}


def log(rows: int = 2500) -> pd.DataFrame:
    """Users who like one kind of ad and are shown any."""
    random = np.random.default_rng(5)
    user, ad = random.integers(0, 40, rows), random.integers(0, 80, rows)
    liked = user % 4 == ad % 4
    return pd.DataFrame(
        {
            "who": [f"u{i}" for i in user],
            "ad": [f"ad{i}" for i in ad],
            "kind": [f"kind{i % 4}" for i in ad],
            "at": 1_700_000_000 + np.arange(rows) * 3600,
            "page": random.choice(["home", "search", "banner"], rows, p=[0.5, 0.3, 0.2]),
            "device": random.choice(["phone", "desk"], rows),
            "clicked": (random.random(rows) < np.where(liked, 0.8, 0.1)).astype(int),
        }
    )


@dataclass
class Project:
    """A data folder with a trained variant, the environment that names it, and what was online at first."""

    data: Path
    environment: dict[str, str]
    before: list[tuple[Any, ...]] = field(default_factory=list)

    def kedro(self, *arguments: str) -> None:
        command = [sys.executable, "-m", "kedro", "run", "--env=smoke", *arguments]
        done = subprocess.run(
            command, cwd=PROJECT, env=self.environment, capture_output=True, text=True, timeout=600, check=False
        )
        assert done.returncode == 0, done.stderr[-3000:]

    def online(self) -> list[tuple[Any, ...]]:
        """Every row of the variant's own online store."""
        with contextlib.closing(sqlite3.connect(self.data / "04_feature/online_store.db")) as connection:
            tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name").fetchall()
            return [(name, *row) for (name,) in tables for row in connection.execute(f'SELECT * FROM "{name}"')]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """STAR trained on a small log, and its online store loaded: as after ``make run`` and ``materialize``."""
    folder = tmp_path_factory.mktemp("notebooks")
    (folder / "raw").mkdir()
    log().to_csv(folder / "raw/clicks.csv", index=False)
    (folder / "clicks.yml").write_text(SCHEMA)
    named = {"MULTIDOMAIN_DATA": folder / "data", "MULTIDOMAIN_SCHEMAS": folder, "MULTIDOMAIN_DATASET": "clicks"}
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MULTIDOMAIN_", "MLFLOW_"))}
    environment = kept | {name: str(value) for name, value in named.items()} | {"OMP_NUM_THREADS": "1"}
    made = Project(folder / "data", environment)
    chosen = f"--params=dataset=clicks,raw_folder={folder / 'raw'},sample_share=null,"
    chosen += "star.training.epochs=3,star.training.batch_size=50"
    made.kedro("--pipelines=train_star,materialize", chosen)
    compared = "compare.models=star dnn,compare.seeds=1 2,compare.training.epochs=1"
    made.kedro("--pipeline=compare", "--only-missing-outputs", f"{chosen},{compared}")
    made.before = made.online()
    return made


@pytest.fixture(scope="module")
def executed(project: Project) -> Callable[[str], nbformat.NotebookNode]:
    """A notebook by its name, with its outputs, after the cell of ``TOLD`` if there is one."""

    @functools.cache
    def run(name: str) -> nbformat.NotebookNode:
        notebook = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)
        notebook.cells += [nbformat.v4.new_code_cell(source, id="told") for source in TOLD.get(name, [])]
        where = {"metadata": {"path": str(NOTEBOOKS)}}
        NotebookClient(notebook, timeout=300, kernel_name="python3", resources=where).execute(env=project.environment)
        return notebook

    return run


def outputs(notebook: nbformat.NotebookNode, kind: str) -> dict[str, str]:
    """By the cell's name what was shown of one kind, such as ``text/html``."""
    data = {cell.id: [o.data for o in cell.get("outputs", []) if "data" in o] for cell in notebook.cells}
    return {name: shown[0][kind] for name, shown in data.items() if shown and kind in shown[0]}


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_is_stored_without_outputs_or_anything_of_the_machine_it_was_written_on(name):
    path = NOTEBOOKS / f"{name}.ipynb"
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert not {place for place in (str(PROJECT), str(Path.home())) if f"{place}/" in path.read_text()}
    for cell in notebook.cells:
        assert cell.cell_type == "markdown" or (cell.outputs == [] and cell.execution_count is None), cell.id
        assert not cell.metadata, cell.id
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    assert notebook.metadata.kernelspec.name == "python3"
    assert set(notebook.metadata.language_info) == {"name"}


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_every_notebook_runs_from_its_first_cell_to_its_last(executed, name):
    notebook = executed(name)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    said = "".join(o.text for cell in code for o in cell.outputs if o.get("name") == "stderr")
    assert "Warning" not in said
    assert "Traceback" not in said


@pytest.mark.slow
def test_a_reader_sees_how_domains_differ_in_size_rate_users_and_items(executed, project):
    tables = outputs(executed("01_domains"), "text/html")
    assert set(tables) == {"sizes", "shared", "shared-items", "items"}
    (frame,) = project.data.glob("04_feature/clicks/*/training_frame.parquet")
    rows = pd.read_parquet(frame).query("split == 'train'").groupby("domain")["label"].agg(["size", "mean"])
    assert set(rows.index) == {"home", "search", "banner"}
    for page, (size, rate) in rows.iterrows():
        for said in (page, f"{int(size):,}", f"{rate:.3f}"):
            assert f">{said}<" in tables["sizes"]
    assert tables["shared"].count("100%") >= 3  # every domain shares all users with itself
    assert set(outputs(executed("01_domains"), "image/png")) == {"plot"}


@pytest.mark.slow
def test_a_reader_sees_both_models_overall_by_domain_and_their_price(executed, project):
    tables = outputs(executed("03_compare"), "text/html")
    (board,) = project.data.glob("08_reporting/clicks/*/compare/leaderboard.parquet")
    found = pd.read_parquet(board).set_index("label")
    for model in ("star", "dnn"):
        assert model in tables["leaderboard"]
        assert f"{found.loc[model, 'auc_mean']:.4f}" in tables["leaderboard"]
        assert model in tables["domains"]
    assert "home" in tables["domains"]
    assert set(outputs(executed("03_compare"), "image/png")) == {"plot"}


@pytest.mark.slow
def test_a_click_changes_history_counts_scores_and_order(executed):
    told = json.loads(executed("02_online").cells[-1].outputs[0].text)
    assert told["changed"] == ["user_history", "user_counts"]
    assert told["history"][1] == [*told["history"][0], told["clicked"]][-5:]
    assert told["count"][1] == told["count"][0] + 1
    assert told["rate"][1] > told["rate"][0]
    before, after = (dict(zip(*order, strict=True)) for order in told["orders"])
    assert set(before) == set(after)
    assert list(before) != list(after)
    assert max(abs(after[item] - before[item]) for item in before) > 1e-3


@pytest.mark.slow
def test_a_reader_sees_both_histories_both_orders_and_a_picture(executed):
    notebook = executed("02_online")
    told, tables = json.loads(notebook.cells[-1].outputs[0].text), outputs(notebook, "text/html")
    assert told["clicked"] not in tables["look-up"]
    assert told["clicked"] in tables["look-again"]
    for item in told["orders"][0][0]:
        assert item in tables["rank-before"]
        assert tables["rank-after"].count(f">{item}<") == 2
    assert set(outputs(notebook, "image/png")) == {"plot"}


@pytest.mark.slow
def test_the_variants_own_online_store_is_as_it_was_and_the_scratch_store_is_gone(project, executed):
    told = json.loads(executed("02_online").cells[-1].outputs[0].text)
    assert project.before
    assert project.online() == project.before
    assert not Path(told["scratch"]).exists()
