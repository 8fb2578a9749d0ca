"""What a person opens in a browser: the report, MLflow's pages of a run, the graph of a pipeline."""

from __future__ import annotations

import contextlib
import html
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from places import PROJECT
from servers import free_port, wait

from multidomain import tracking

if TYPE_CHECKING:
    from trained_variant import Trained

    Both = tuple[Trained, Trained]

pytest_plugins = ["trained_variant"]
pytestmark = pytest.mark.slow
BROWSER = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
)
HIGHEST = 49_151  # port that kedro-viz takes
HEADLESS = ("--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=20000", "--window-size=1600,1200")


@pytest.fixture
def seen(tmp_path: Path) -> Callable[[str], str]:
    """The page at an address as a browser holds it after its scripts have run."""
    if BROWSER is None:
        pytest.skip("there is no Chromium here")

    def look(address: str) -> str:
        command = [BROWSER, *HEADLESS, f"--user-data-dir={tmp_path / 'browser'}", "--dump-dom", address]
        done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
        return html.unescape(done.stdout)

    return look


@contextlib.contextmanager
def server(command: list[str], port: int, report: Path, **environment: str) -> Iterator[str]:
    """The address of a program that serves pages, until the block ends."""
    with report.open("wb") as said:
        process = subprocess.Popen(
            command, cwd=PROJECT, env={**os.environ, **environment}, stdout=said, stderr=said, start_new_session=True
        )
        try:
            wait(port, process, report, seconds=120)
            yield f"http://127.0.0.1:{port}"
        finally:
            with contextlib.suppress(ProcessLookupError):  # it ended by itself
                os.killpg(process.pid, signal.SIGTERM)
            process.wait(timeout=30)


def test_a_browser_shows_the_whole_report_without_a_network(
    stars: Both, seen: Callable[[str], str], tmp_path: Path
) -> None:
    page = (stars[0].plots / "report.html").read_text("utf-8")
    assert not re.findall(r'(?:src|href)="(?!data:)', page)  # nothing to fetch
    counting = "<script>document.title = [...document.images].filter(i => i.naturalWidth > 300).length</script></body>"
    (tmp_path / "report.html").write_text(page.replace("</body>", counting), "utf-8")
    shown = seen((tmp_path / "report.html").as_uri())
    assert f"<title>{page.count('<img ')}</title>" in shown
    for said in ("star on tiny/place-user_time-full-click", "How sure these figures are", "By user activity", "Cost"):
        assert said in shown
    assert f"{stars[0].metrics['overall']['auc']:.4f}" in shown


def test_mlflows_pages_show_a_run_with_its_metrics_data_and_revision(
    packages: tuple[dict[str, Any], ...], tracked: Path, seen: Callable[[str], str], tmp_path: Path
) -> None:
    port, run = free_port(), tracking.connect().get_run(packages[0]["run_id"])
    command = [
        sys.executable,
        "-m",
        "mlflow",
        "ui",
        "--backend-store-uri",
        tracking.store(),
        "--port",
        str(port),
        "--workers",
        "1",
    ]
    with server(command, port, tmp_path / "mlflow.log", MLFLOW_DISABLE_TELEMETRY="true") as address:
        shown = seen(f"{address}/#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}")
    for said in ("test_auc", "data_fingerprint", run.data.tags["data_fingerprint"], "git_revision", "calibration"):
        assert said in shown


def test_the_graph_of_a_pipeline_shows_its_nodes(seen: Callable[[str], str], tmp_path: Path) -> None:
    port = next(port for port in iter(free_port, None) if port <= HIGHEST)
    command = [
        sys.executable,
        "-m",
        "kedro",
        "viz",
        "run",
        "--no-browser",
        "--port",
        str(port),
        "--pipeline",
        "train_star",
    ]
    with server(command, port, tmp_path / "viz.log", MULTIDOMAIN_DATA=str(tmp_path / "data")) as address:
        shown = seen(address)
    for node in ("join_training_frame", "fit_encoder", "assign_domains_and_splits"):
        assert node in shown or node.replace("_", " ") in shown
