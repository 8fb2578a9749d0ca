"""The commands of the README, as a person types them, on a small sample and on a log of one's own."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import s3_server
from places import MOVIELENS, PROJECT, RAW
from web import Served, serving

from benchmarks.raw_files import grouplens
from multidomain import schema
from multidomain.errors import DataError
from multidomain.sources.files import locate

pytestmark = pytest.mark.slow
KEDRO = [sys.executable, "-m", "kedro"]
VARIANT = "movielens/age-user_time-full-click"


@dataclass
class Project:
    """The project's command line on a data folder of its own."""

    data: Path

    def environment(self, **extra: str) -> dict[str, str]:
        return {**os.environ, "MULTIDOMAIN_DATA": str(self.data), "OMP_NUM_THREADS": "1", "COLUMNS": "120", **extra}

    def kedro(self, *arguments: str, **extra: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*KEDRO, *arguments],
            cwd=PROJECT,
            env=self.environment(**extra),
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )

    def run(self, *arguments: str, **parameters: object) -> subprocess.CompletedProcess[str]:
        given = ",".join(f"{key}={value}" for key, value in {"raw_folder": RAW, **parameters}.items())
        return self.kedro("run", "--env=smoke", *arguments, f"--params={given}")

    def metrics(self, key: str, architecture: str = "star") -> dict[str, Mapping[str, float]]:
        return json.loads((self.data / "08_reporting" / key / architecture / "metrics.json").read_text())


def succeeded(done: subprocess.CompletedProcess[str]) -> str:
    """What was said, once the command has ended well."""
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout + done.stderr


def refused(done: subprocess.CompletedProcess[str]) -> str:
    """The one message at the end of a command that was refused, without a traceback."""
    assert done.returncode != 0
    assert "Traceback" not in done.stderr, done.stderr[-3000:]
    assert done.stderr.count("Error: ") == 1
    message = done.stderr[done.stderr.index("Error: ") :]
    return " ".join(message.split())


def done_nodes(said: str) -> list[str]:
    return [line.split("·", 1)[1].strip() for line in said.splitlines() if " INFO    · " in line]


@pytest.fixture(scope="module")
def movielens(tmp_path_factory) -> Project:
    """STAR trained on a sample of MovieLens, through every stage."""
    try:
        locate(schema.load("movielens"), RAW)
    except DataError as error:
        pytest.skip(f"MovieLens is not here and cannot be fetched: {error}")
    assert MOVIELENS.is_file()
    project = Project(tmp_path_factory.mktemp("movielens"))
    said = succeeded(project.run("--pipeline=train_star"))
    assert "AUC" in said
    assert "overall" in said
    return project


def test_a_run_leaves_metrics_predictions_plots_and_a_champion(movielens):
    metrics = movielens.metrics(VARIANT)
    reports = movielens.data / "08_reporting" / VARIANT / "star"
    predictions = pd.read_parquet(reports / "predictions.parquet")
    assert list(predictions.columns) == ["impression_id", "domain", "label", "score"]
    assert metrics["overall"]["rows"] == len(predictions)
    assert set(metrics["domains"]) == {"under_25", "25_to_34", "35_and_over"}
    assert 0.6 < metrics["overall"]["auc"] < 0.95
    assert {"roc.png", "calibration.png", "pcoc.png", "report.html"} <= {p.name for p in (reports / "plots").iterdir()}
    assert (reports / "insights" / "distance_from_centre.png").exists()
    assert (reports.parent / "drift" / "report.html").exists()
    package = json.loads((reports / "package.json").read_text())
    assert package["alias"] == "champion"


def test_prepared_outputs_are_not_made_again(movielens):
    assert done_nodes(succeeded(movielens.run("--pipeline=train_star", "--only-missing-outputs"))) == []


def test_another_machine_takes_what_is_made_from_an_object_store(movielens, tmp_path):
    s3fs = pytest.importorskip("s3fs", reason="there is no driver of s3:// here: pip install 'multidomain[s3]'")
    (tmp_path / "raw").symlink_to(RAW)
    with s3_server.running() as server:
        reached = {**s3_server.ENVIRONMENT, "AWS_ENDPOINT_URL": server.address}
        s3fs.S3FileSystem(endpoint_url=server.address, key="tests", secret="tests").mkdir("shop")
        reached["MULTIDOMAIN_OUTPUT_STORE"] = "s3://shop/outputs"
        run = ("run", "--env=smoke", "--pipeline=train_star", "--only-missing-outputs")
        assert done_nodes(succeeded(movielens.kedro(*run, f"--params=raw_folder={RAW}", **reached))) == []
        other = Project(tmp_path / "data")
        said = succeeded(other.kedro(*run, f"--params=raw_folder={tmp_path / 'raw'}", **reached))
    assert re.search(r"\d+ outputs were taken from s3://shop/outputs", said)
    assert done_nodes(said) == ["apply feature repository", "star.package"]  # Feast's and MLflow's registry lie here
    for place in ("04_feature/{}/training_frame.parquet", "08_reporting/{}/star/predictions.parquet"):
        mine, theirs = (one.data / place.format(VARIANT) for one in (other, movielens))
        assert mine.read_bytes() == theirs.read_bytes()
    assert other.metrics(VARIANT) == movielens.metrics(VARIANT)


def test_another_architecture_uses_what_is_prepared(movielens):
    nodes = done_nodes(succeeded(movielens.run("--pipeline=train_dnn", "--only-missing-outputs")))
    assert nodes
    assert all(node.startswith("dnn.") for node in nodes)
    assert movielens.metrics(VARIANT, "dnn")["overall"]["auc"] > 0.6


def test_rows_of_the_feature_stage_are_scored_from_a_file_as_in_the_run(movielens, tmp_path):
    frame = pd.read_parquet(movielens.data / "04_feature" / VARIANT / "training_frame.parquet")
    frame[frame.split == "test"].to_parquet(tmp_path / "rows.parquet")
    succeeded(movielens.run("--pipeline=predict", input=tmp_path / "rows.parquet", architecture="star"))
    scores = pd.read_parquet(movielens.data / "07_model_output" / VARIANT / "star" / "scores.parquet")
    expected = pd.read_parquet(movielens.data / "08_reporting" / VARIANT / "star" / "predictions.parquet")
    both = scores.merge(expected, on="impression_id")
    assert len(both) == len(expected)
    np.testing.assert_allclose(both.score_x, both.score_y, atol=1e-5)


def test_the_online_store_is_loaded_up_to_a_time_and_then_on_from_there(movielens):
    report = movielens.data / "08_reporting" / VARIANT / "materialized.json"
    for until in ("2000-12-01", "2001-02-01T12:00:00"):
        said = succeeded(movielens.run("--pipeline=materialize", **{"materialize.until": until}))
        assert done_nodes(said) == ["load online store"]
    views = json.loads(report.read_text())["views"]
    assert views["item_counts"]["from"] == "2000-12-01T00:00:00+00:00"
    assert views["item_counts"]["to"] == "2001-02-01T12:00:00+00:00"
    assert "'untill' is not known; did you mean 'until'" in refused(
        movielens.run("--pipeline=materialize", **{"materialize.untill": "2001-02-01"})
    )
    assert "must be a time such as" in refused(
        movielens.run("--pipeline=materialize", **{"materialize.until": "yesterday"})
    )


def test_requests_are_given_what_training_rows_were_given(movielens):
    options = {"architecture": "star", "check_parity.moments": 2, "check_parity.rows": 50}
    said = succeeded(movielens.run("--pipeline=check_parity", **options))
    report = json.loads((movielens.data / "08_reporting" / VARIANT / "parity.json").read_text())
    assert report["rows"] == 100
    assert {line["equal"] for line in report["features"]} == {100}
    assert report["score_difference"] <= 1e-6
    assert "Offline against online, 100 impressions at 2 moments" in " ".join(said.split())
    assert "must be a whole number" in refused(
        movielens.run("--pipeline=check_parity", **options | {"check_parity.rows": "many"})
    )


def test_the_online_store_is_held_against_the_view_tables(movielens):
    succeeded(movielens.run("--pipeline=materialize", **{"materialize.full": "true"}))
    said = succeeded(movielens.run("--pipeline=check_freshness"))
    assert "Newest values online against the newest row of each view's table" in " ".join(said.split())
    report = json.loads((movielens.data / "08_reporting" / VARIANT / "freshness/freshness.json").read_text())
    assert {line["absent"] + line["behind"] + line["differing"] for line in report["views"]} == {0}
    said = refused(movielens.run("--pipeline=check_freshness", **{"check_freshness.at": "now"}))
    assert "stale: movielens/" in said
    assert "kedro run --pipeline=prepare" in said


def test_a_stage_without_what_it_starts_from_says_what_makes_it(tmp_path):
    said = refused(Project(tmp_path).run("--pipeline=materialize"))
    assert "starts from 'feature_repository'" in said
    assert "kedro run --pipeline=prepare" in said


def test_models_are_compared_and_a_paper_table_uses_what_is_trained(movielens):
    lists = {"compare.models": "star|dnn", "compare.seeds": 2021}  # the seed train_star has
    said = succeeded(movielens.run("--pipeline=compare", "--only-missing-outputs", **lists))
    assert done_nodes(said) == ["train each model", "rank", "present", "track"]
    assert "(2 of 2 done)" in said
    assert re.search(r"RelaImpr.*\n.*\(dnn\)", said)  # a heading of two lines
    assert "clustered DeLong over test rows: p" in " ".join(said.split())  # in lines as wide as the table
    place = movielens.data / "08_reporting" / VARIANT / "compare"
    table = pd.read_parquet(place / "leaderboard.parquet").set_index("label")
    assert table.auc_mean["star"] == movielens.metrics(VARIANT)["overall"]["auc"]
    page = (place / "leaderboard" / "leaderboard.html").read_text()
    assert "kedro run --env=smoke --pipeline=compare" in page
    assert done_nodes(succeeded(movielens.run("--pipeline=compare", "--only-missing-outputs", **lists))) == []

    lists = {"table": "star_3", "compare.seeds": 2021}
    said = succeeded(movielens.run("--pipeline=reproduce", "--only-missing-outputs", **lists))
    assert "4 results: 2 are there, 2 to make" in said
    assert "The data differs" in said
    text = (movielens.data / "08_reporting" / VARIANT / "reproduce/star_3/table.md").read_text()
    assert "| paper: Overall AUC | 0.6364 | 0.6485 | 0.6455 | 0.6506 |" in text


def test_options_of_training_evaluation_and_the_gate_go_together(movielens):
    options = {"dnn.training.negative_rate": 0.5, "calibration": "shrunk", "reference": "star", "gate": "off"}
    said = succeeded(movielens.run("--pipeline=train_dnn", "--only-missing-outputs", **options))
    assert "The quality gate is off" in " ".join(said.split())
    reports = movielens.data / "08_reporting" / VARIANT / "dnn"
    overall = json.loads((reports / "metrics.json").read_text())["overall"]
    assert 0.9 < overall["pcoc"] < 1.1  # although every second negative was left out
    page = (reports / "plots/report.html").read_text()
    assert "Calibration before and after" in page
    assert "movielens-age-user_time-full-click-star" in page


def test_a_search_leaves_a_configuration_and_goes_on_where_it_was(movielens):
    options = {"tune.trials": 2, "dnn.training.epochs": 1}
    succeeded(movielens.run("--pipeline=tune_dnn", "--only-missing-outputs", **options))
    (best,) = movielens.data.rglob("tune/best/dnn.yml")
    assert "learning_rate" in best.read_text()
    succeeded(movielens.run("--pipeline=tune_dnn", "--only-missing-outputs", **options | {"tune.trials": 3}))
    (trials,) = movielens.data.rglob("tune/trials.csv")
    assert len(pd.read_csv(trials)) == 3


def test_deletion_lists_what_it_would_take_and_takes_nothing_unless_told(movielens):
    said = refused(movielens.run("--pipeline=delete"))
    assert "Nothing was deleted" in said
    assert (movielens.data / "08_reporting" / VARIANT / "star/metrics.json").is_file()


def test_scoring_a_file_that_is_not_there_says_so(movielens):
    assert "nowhere.parquet" in refused(movielens.run("--pipeline=predict", input="nowhere.parquet"))


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"domian": "genre"}, "'domian' is not known; did you mean 'domain'"),
        ({"domain": "gender"}, "'gender' is not known; did you mean 'genre'"),
        ({"dataset": "movielense"}, "No schema for data set 'movielense'"),
        ({"split": "random"}, "training rows would see the labels of test rows"),
        ({"star.training.epoch": 3}, "'epoch' is not known; did you mean 'epochs'"),
        ({"star.model.hiden": 3}, "'hiden' is not known; did you mean 'hidden'"),
    ],
)
def test_a_wrong_choice_ends_in_one_message_before_anything_runs(tmp_path, parameters, message):
    project = Project(tmp_path)
    said = refused(project.run("--pipeline=train_star", **parameters))
    assert message in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("pipeline", "parameters", "message"),
    [
        ("compare", {"compare.models": "star dn"}, "'dn' is not known; did you mean 'dnn'"),
        ("compare", {"compare.model": "star"}, "'model' is not known; did you mean 'models'"),
        ("compare", {"compare.seeds": "one"}, "a seed is a whole number"),
        ("compare", {"dnn.training.epoch": 3}, "'dnn': dnn.training: 'epoch' is not known; did you mean 'epochs'"),
        ("reproduce", {}, "No table to reproduce: --params=table=NAME. There are: adaptdhm_3"),
        ("reproduce", {"table": "star_33"}, "'star_33' is not known; did you mean 'star_3'"),
        ("reproduce", {"table": "star_3", "compare.workers": 0}, "compare.workers must be a whole number"),
    ],
)
def test_a_wrong_comparison_ends_in_one_message_before_anything_runs(tmp_path, pipeline, parameters, message):
    project = Project(tmp_path)
    assert message in refused(project.run(f"--pipeline={pipeline}", **parameters))
    assert list(tmp_path.iterdir()) == []


def test_every_pipeline_is_listed(tmp_path):
    said = succeeded(Project(tmp_path).kedro("registry", "list"))
    named = ("__default__", "fetch", "prepare", "drift", "train_star", "train_dnn", "materialize", "predict", "compare")
    for name in (*named, "reproduce", "check_parity", "check_freshness"):
        assert f"- {name}\n" in said


# --- files in their vendors' own formats -----------------------------------------------------------------------------


def test_missing_files_are_named_with_where_to_get_them_where_to_put_them_and_what_fetches_them(tmp_path):
    said = refused(Project(tmp_path / "data").run("--pipeline=prepare", dataset="movielens_1m", raw_folder=tmp_path))
    for name in ("ratings", "movies", "users"):
        assert f"{tmp_path / 'movielens_1m' / name}.dat is missing." in said
    for words in (
        "Data set 'movielens_1m': raw files are missing.",
        "Download it from https://files.grouplens.org/datasets/movielens/ml-1m.zip (see https://grouplens.org/",
        f"Put them into {tmp_path / 'movielens_1m'}, unpacked or in the archive they come in.",
        f"kedro run --pipeline=fetch --params=dataset=movielens_1m,raw_folder={tmp_path}",
        "Licence: Research use",
    ):
        assert words in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("layout", ["1m", "20m"])
def test_files_are_fetched_from_their_address_and_prepared_as_they_come(tmp_path, layout):
    name = f"movielens_{layout}"
    files = grouplens.write(tmp_path / "vendor", rows=4000, layout=layout)
    with zipfile.ZipFile(tmp_path / "archive.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for file in files.values():
            archive.write(file.path, f"ml-{layout}/{file.path.name}")
    content = (tmp_path / "archive.zip").read_bytes()
    text = (PROJECT / f"conf/base/datasets/{name}.yml").read_text()
    with serving({f"ml-{layout}.zip": Served(content, cuts=[len(content) // 2])}) as server:
        text = text.replace("https://files.grouplens.org/datasets/movielens", server.address)
        text = re.sub("md5:[0-9a-f]+", f"md5:{hashlib.md5(content).hexdigest()}", text)
        (tmp_path / f"{name}.yml").write_text(text)
        project, raw = Project(tmp_path / "data"), tmp_path / "raw"
        flags = f"--params=dataset={name},raw_folder={raw},sample_share=null"
        said = succeeded(
            project.kedro("run", "--env=smoke", "--pipeline=fetch", flags, MULTIDOMAIN_SCHEMAS=str(tmp_path))
        )
        assert f"{raw / name / f'ml-{layout}.zip'}: {len(content):,} bytes" in said.replace("\n", "")
        assert server.ranges == [None, f"bytes={len(content) // 2}-"]
    said = succeeded(
        project.kedro("run", "--env=smoke", "--pipeline=prepare", flags, MULTIDOMAIN_SCHEMAS=str(tmp_path))
    )
    assert "encode" in done_nodes(said)
    (frame,) = (project.data / "04_feature" / name).glob("*/training_frame.parquet")
    assert len(pd.read_parquet(frame)) == 4000


def test_a_server_that_is_not_there_ends_in_one_message(tmp_path):
    text = (PROJECT / "conf/base/datasets/movielens_1m.yml").read_text()
    (tmp_path / "movielens_1m.yml").write_text(text.replace("https://files.grouplens.org", "http://127.0.0.1:9"))
    flags = f"--params=dataset=movielens_1m,raw_folder={tmp_path / 'raw'}"
    done = Project(tmp_path / "data").kedro("run", "--pipeline=fetch", flags, MULTIDOMAIN_SCHEMAS=str(tmp_path))
    said = refused(done)
    assert "http://127.0.0.1:9/datasets/movielens/ml-1m.zip could not be fetched: the server cannot be reached" in said
    assert f"put it at {tmp_path / 'raw/movielens_1m/ml-1m.zip'}" in said
    assert list((tmp_path / "raw/movielens_1m").iterdir()) == []


# --- a log of one's own, described by a schema alone -----------------------------------------------------------------

OWN = """
source: table
files: {log: clicks.csv}
roles: {user: who, item: ad, timestamp: at}
labels: {click: clicked}
domains: {page: {column: page, minimum: 20}}
features:
  who: user
  ad: item
  device: context
  price: {owner: item, kind: numerical}
history: {clicks: {fields: {ad: ad}, length: 5}}
counts: [user, item, domain]
"""


@pytest.fixture
def own(tmp_path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs a schema and a table that a test may spoil first."""
    (tmp_path / "raw").mkdir()
    random = np.random.default_rng(5)
    n = 3000
    ad = random.integers(0, 30, n)
    table = pd.DataFrame(
        {
            "who": [f"u{i}" for i in random.integers(0, 60, n)],
            "ad": [f"ad{i}" for i in ad],
            "at": 1_700_000_000 + np.arange(n) * 3600,
            "page": random.choice(["home", "search", "banner"], n, p=[0.5, 0.3, 0.2]),
            "device": random.choice(["phone", "desk"], n),
            "price": ad * 1.5,
            "clicked": (random.random(n) < 0.15 + 0.02 * ad).astype(int),
        }
    )

    def run(
        *arguments: str,
        spoil: Callable[[pd.DataFrame], pd.DataFrame] = lambda frame: frame,
        text: str = OWN,
        **parameters: object,
    ) -> subprocess.CompletedProcess[str]:
        (tmp_path / "clicks.yml").write_text(text)
        content, file = spoil(table.copy()).to_csv(index=False), tmp_path / "raw/clicks.csv"
        if not file.exists() or file.read_text() != content:  # a raw file written anew counts as another one
            file.write_text(content)
        given = {"dataset": "clicks", "raw_folder": tmp_path / "raw", "sample_share": "null", **parameters}
        flags = ",".join(f"{key}={value}" for key, value in given.items())
        project = Project(tmp_path / "data")
        return project.kedro("run", "--env=smoke", *arguments, f"--params={flags}", MULTIDOMAIN_SCHEMAS=str(tmp_path))

    return run


def changed(column: str, rows: slice, value: object) -> Callable[[pd.DataFrame], pd.DataFrame]:
    def spoil(frame: pd.DataFrame) -> pd.DataFrame:
        frame[column] = frame[column].astype(object)
        frame.loc[frame.index[rows], column] = value
        return frame

    return spoil


def test_a_log_of_ones_own_needs_a_schema_and_nothing_else(own, tmp_path):
    assert len(OWN.strip().splitlines()) <= 40
    succeeded(own("--pipeline=train_star"))
    metrics = Project(tmp_path / "data").metrics("clicks/page-user_time-full-click")
    assert set(metrics["domains"]) == {"home", "search", "banner"}


def test_three_rows_without_a_user_are_set_apart_and_the_run_goes_on(own, tmp_path):
    relaxed = OWN + "validation: {max_quarantined: 0.01}\n"
    succeeded(own("--pipeline=prepare", spoil=changed("who", slice(10, 13), None), text=relaxed))
    apart = pd.read_parquet(tmp_path / "data/02_intermediate/clicks/quarantine.parquet")
    assert len(apart) == 3
    assert len(pd.read_parquet(tmp_path / "data/02_intermediate/clicks/valid/impressions.parquet")) == 2997


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (changed("clicked", slice(0, 150), 2), ["clicked", "150"]),
        (changed("who", slice(0, 150), None), ["who", "150"]),
        (changed("price", slice(0, 150), "dear"), ["price", "150", "dear"]),
        (lambda frame: frame.rename(columns={"device": "devise"}), ["device", "devise"]),
        (lambda frame: frame.assign(clicked=1), ["label 1", "both classes"]),
    ],
)
def test_a_broken_log_ends_in_one_message_that_names_column_and_rows(own, tmp_path, spoil, words):
    said = refused(own("--pipeline=prepare", spoil=spoil))
    for word in words:
        assert word in said
    assert not [path for path in (tmp_path / "data").rglob("*") if path.name.endswith(".tmp")]
    assert not list((tmp_path / "data").rglob("encoded"))


def test_a_domain_with_three_rows_joins_the_remainder(own, tmp_path):
    said = succeeded(own("--pipeline=prepare", spoil=changed("page", slice(5, 8), "popup")))
    assert "popup (3)" in said
    domains = pd.read_parquet(tmp_path / "data/03_primary/clicks/page-user_time-full-click/domains.parquet")
    assert domains.set_index("domain")["rows"]["remainder"] == 3


def test_a_schema_edited_between_two_runs_is_prepared_again(own):
    assert "encode" in done_nodes(succeeded(own("--pipeline=prepare")))
    again = OWN.replace("length: 5", "length: 3")
    assert "encode" in done_nodes(succeeded(own("--pipeline=prepare", "--only-missing-outputs", text=again)))
    assert done_nodes(succeeded(own("--pipeline=prepare", "--only-missing-outputs", text=again))) == []


def test_an_unknown_key_in_the_schema_names_file_and_key(own):
    said = refused(own("--pipeline=prepare", text=OWN.replace("column: page", "colum: page")))
    assert "clicks.yml: domains.page: 'colum' is not known; did you mean 'column'" in said


def test_a_training_killed_in_the_middle_is_taken_up_again(own, tmp_path):
    succeeded(own("--pipeline=prepare"))
    project = Project(tmp_path / "data")
    flags = f"dataset=clicks,raw_folder={tmp_path / 'raw'},sample_share=null,star.training.epochs=12"
    flags += ",star.training.batch_size=50,star.training.patience=12"
    command = [*KEDRO, "run", "--env=smoke", "--pipeline=train_star", "--only-missing-outputs", f"--params={flags}"]
    environment = project.environment(MULTIDOMAIN_SCHEMAS=str(tmp_path))
    checkpoints = project.data / "06_models/clicks/page-user_time-full-click/star/checkpoints"
    running = subprocess.Popen(command, cwd=PROJECT, env=environment, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        until = time.monotonic() + 120
        while not list(checkpoints.glob("epoch-*")) and time.monotonic() < until:
            time.sleep(0.02)
    finally:
        os.killpg(running.pid, signal.SIGKILL)
        running.wait()
    assert not (checkpoints.parent / "model").exists()
    done = subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, text=True, check=False)
    assert "Training goes on after epoch" in succeeded(done)
    history = pd.read_csv(project.data / "08_reporting/clicks/page-user_time-full-click/star/history.csv")
    assert history.epoch.tolist() == list(range(1, 13))


def test_the_graph_of_the_project_is_built_with_its_layers_in_order(tmp_path):
    succeeded(Project(tmp_path).kedro("viz", "build"))
    graph = json.loads((PROJECT / "build/api/main").read_text())
    order = ["raw", "intermediate", "primary", "feature", "model_input", "models", "reporting"]
    assert [layer for layer in graph["layers"] if layer in order] == order
    assert {"train_star", "train_dnn", "prepare", "predict", "compare", "reproduce"} <= {
        pipeline["id"] for pipeline in graph["pipelines"]
    }
