"""What a run prints when it has ended: its results, and where they are."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from kedro.io import DataCatalog
from kedro.pipeline import Pipeline

from .io.datasets import place_of


def show(pipeline: Pipeline, catalog: DataCatalog) -> None:
    """Print the metrics, tables and paths of what the pipeline has made."""
    outputs = pipeline.all_outputs()
    if "leaderboard" in outputs:
        _show_leaderboard(catalog)
    if "reproduction" in outputs:
        _show_table(catalog)
    if "parity" in outputs:
        _show_parity(catalog)
    if "freshness" in outputs:
        _show_freshness(catalog)
    for name in sorted(outputs):
        if name.endswith(".stream_report"):
            _show_stream(catalog, name.removesuffix(".stream_report"))
    made = [name.removesuffix(".metrics") for name in sorted(outputs) if name.endswith(".metrics")]
    if not made:
        return
    from rich.console import Console

    from .evaluation.report import summary

    console = Console()
    for architecture in made:
        console.print(summary(catalog.load(f"{architecture}.metrics"), title=architecture))
        for label, path in _written(pipeline, catalog, architecture):
            console.print(f"  {label:<12} {path}", soft_wrap=True, highlight=False)


def _show_leaderboard(catalog: DataCatalog) -> None:
    from rich.console import Console

    from .comparison.leaderboard import summary

    table, comparison = catalog.load("leaderboard").to_pandas(), catalog.load("comparison")
    table = table.sort_values("auc_mean", ascending=False, kind="stable")
    title = f"Models on {catalog.load('variant').key}"
    console = Console()
    console.print(summary(table, comparison["tests"], title=title, base=comparison["base"]))
    for note in comparison["notes"]:
        console.print(note, highlight=False)
    for label, name in (
        ("leaderboard", "leaderboard"),
        ("page", "leaderboard_page"),
        ("results", "comparison_results"),
    ):
        console.print(f"  {label:<12} {_relative(place_of(catalog, name))}", soft_wrap=True, highlight=False)


def _show_table(catalog: DataCatalog) -> None:
    from rich.console import Console
    from rich.markdown import Markdown

    folder = catalog.load("reproduction")
    console = Console()
    lines = (folder / "table.md").read_text(encoding="utf-8").splitlines()
    console.print(Markdown("\n".join(line for line in lines if not line.startswith("!["))))
    console.print(f"  {'table':<12} {_relative(folder)}", soft_wrap=True, highlight=False)


def _show_stream(catalog: DataCatalog, architecture: str) -> None:
    from rich.console import Console

    found, console = catalog.load(f"{architecture}.stream_report"), Console()
    console.print(
        f"{architecture}: {found['learnt']:,} rows learnt in {found['steps']:,} steps, {found['rejected']:,} rejected; "
        f"{found['entered']:,} values entered the vocabularies, {found['left']:,} left",
        highlight=False,
    )
    for version in found["versions"]:
        said = " ".join(version["gate"]["reasons"])
        console.print(f"  after {version['rows']:,} rows: version {version['version']}, {version['alias']} {said}")
    for label, name in (("windows", "prequential"), ("plots", "stream_plots"), ("kept", "stream_kept")):
        console.print(f"  {label:<12} {_relative(place_of(catalog, f'{architecture}.{name}'))}", soft_wrap=True)


def _show_parity(catalog: DataCatalog) -> None:
    from rich.console import Console
    from rich.table import Table

    found = catalog.load("parity")
    title = f"Offline against online, {found['rows']:,} impressions at {len(found['moments'])} moments"
    table = Table("feature", "equal", "differing", "missing", title=title)
    for line in found["features"]:
        table.add_row(line["feature"], *(f"{line[name]:,}" for name in ("equal", "differing", "missing")))
    console = Console()
    console.print(table)
    passed = [name for name, report in found["checks"].items() if report is not None]
    console.print(f"checked before: {', '.join(passed)}", highlight=False)
    console.print(f"scores of {found['model']} differ by at most {found['score_difference']:.2g}", highlight=False)
    console.print(f"  {'parity':<12} {_relative(place_of(catalog, 'parity'))}", soft_wrap=True, highlight=False)


def _show_freshness(catalog: DataCatalog) -> None:
    from rich.console import Console

    from .serving.freshness_report import summary

    found = catalog.load("freshness")
    against = found["at"] or "the newest row of each view's table"
    console = Console()
    console.print(summary(found, title=f"Newest values online against {against}"))
    for label, name in (("page", "freshness_page"), ("freshness", "freshness")):
        console.print(f"  {label:<12} {_relative(place_of(catalog, name))}", soft_wrap=True, highlight=False)


def _written(pipeline: Pipeline, catalog: DataCatalog, architecture: str) -> Iterator[tuple[str, Path]]:
    """The outputs of one architecture and where they are, relative to here where possible."""
    for name in ("model", "metrics", "predictions", "history", "plots", "insights", "package"):
        if f"{architecture}.{name}" in pipeline.all_outputs():
            path = place_of(catalog, f"{architecture}.{name}")
            if path:
                yield name, _relative(path)


def _relative(path: Path | None) -> Path:
    """A path relative to here where possible."""
    here = path or Path()
    with contextlib.suppress(ValueError):
        return here.relative_to(Path.cwd())
    return here
