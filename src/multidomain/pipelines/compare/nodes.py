"""Train every entry with every seed, rank them, show and record the ranking."""

from __future__ import annotations

import hashlib
import logging
import shlex
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...comparison.entries import Comparison, Entry
from ...comparison.results import Key, Result
from ...schema import Variant
from ..evaluate.nodes import SPLIT, test_rows
from .jobs import Job, make

if TYPE_CHECKING:
    import ibis.expr.types as ir
    import pandas as pd

logger = logging.getLogger(__name__)
Writer = Callable[[Path], None]


def train_each(
    variant: Variant, encoded: Path, results: Path, checkpoints: Path, parameters: Mapping[str, Any]
) -> dict[str, Any]:
    """Every entry with every seed, by the functions of ``train_<architecture>``; what is there already is kept.

    Args:
        variant: what is trained on.
        encoded: its tensors.
        results: the folder of results, one below it per configuration and seed.
        checkpoints: where a training that was stopped goes on from.
        parameters: all of them: the section ``compare``, one per architecture, ``device``.

    Returns:
        ``base``, ``entries`` (label -> settings) and ``results``: ``label, seed, folder`` below ``results``.
    """
    asked = Comparison.of(parameters)
    jobs = plan(asked.entries, asked.seeds, variant, encoded, results, checkpoints, parameters)
    make(jobs, asked.workers)
    return {"base": asked.base, "command": command(), **made(jobs)}


def plan(
    entries: Iterable[Entry],
    seeds: Sequence[int],
    variant: Variant,
    encoded: Path,
    results: Path,
    checkpoints: Path,
    parameters: Mapping[str, Any],
) -> list[Job]:
    """The jobs of a table, all entries with the first seed first, so that a stopped run leaves a whole table early.

    Every entry is built once without memory, so that one that cannot be built ends the run before the first training.
    """
    from ...inputs import InputSchema
    from ...models import build

    entries = list(entries)
    inputs = InputSchema.from_dict(_json(encoded / "inputs.json"))
    sketch(entries, lambda entry: build(entry.architecture, inputs, **entry.model))
    data = data_digest(encoded)
    return [
        Job(
            key=Key(entry, seed, data),
            variant=variant,
            encoded=encoded,
            results=results,
            checkpoints=checkpoints,
            device=parameters.get("device"),
        )
        for seed in seeds
        for entry in entries
    ]


def sketch(entries: Iterable[Entry], make: Callable[[Entry], Any]) -> dict[str, Any]:
    """What ``make`` gives for each entry, made with its sizes alone; an error names the entry."""
    import torch

    from ...errors import ConfigurationError

    found = {}
    for entry in entries:
        try:
            with torch.device("meta"):
                found[entry.label] = make(entry)
        except ConfigurationError as error:
            raise ConfigurationError(f"'{entry.label}': {error}") from error
    return found


def made(jobs: Sequence[Job]) -> dict[str, Any]:
    """What the jobs have left behind, for JSON."""
    settings = {job.key.entry.label: job.key.entry.settings() for job in jobs}
    places = [
        {
            "label": job.key.entry.label,
            "seed": job.key.seed,
            "folder": job.key.place.as_posix(),
            "digest": job.key.digest,
        }
        for job in jobs
    ]
    return {"entries": settings, "results": places}


def read(compared: Mapping[str, Any], results: Path) -> list[Result]:
    """The results that :func:`made` lists."""
    return [Result.read(results / one["folder"], one["label"]) for one in compared["results"]]


def rank(
    variant: Variant, encoded: Path, results: Path, compared: dict[str, Any]
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """The leaderboard, and what belongs beside it: the tests between best and second, AUC per domain, the settings."""
    import pandas as pd

    from ...comparison.leaderboard import best_against_second, leaderboard, per_domain, with_tests

    found = read(compared, results)
    table = leaderboard(found, compared["base"])
    impressions = pd.read_parquet(encoded / SPLIT / "rows.parquet", columns=["impression_id"])["impression_id"]
    users = pd.Series(test_rows(impressions, encoded)[0], index=pd.Index(impressions))
    domains = per_domain(found, table["label"].tolist())
    tests = best_against_second(found, table, users)
    return with_tests(table, tests), {
        "base": compared["base"],
        "tests": tests,
        "notes": _notes(found, compared["base"]),
        "facts": facts(variant, encoded, found, compared.get("command")),
        "domains": {label: {k: _null(v) for k, v in row.items()} for label, row in domains.to_dict("index").items()},
        "entries": compared["entries"],
    }


def present(variant: Variant, leaderboard: ir.Table, comparison: dict[str, Any]) -> Writer:
    """The leaderboard as a page, and the picture of AUC per domain."""
    import pandas as pd

    from ...comparison import page

    table = leaderboard.to_pandas().sort_values("auc_mean", ascending=False, kind="stable")
    domains = pd.DataFrame.from_dict(comparison["domains"], orient="index").reindex(table["label"]).astype(float)

    def write(folder: Path) -> None:
        page.write(
            folder,
            table=table,
            domains=domains,
            comparison=comparison,
            title=f"Models on {variant.key}",
            facts=comparison["facts"],
        )

    return write


def track(
    variant: Variant,
    results: Path,
    compared: dict[str, Any],
    leaderboard: ir.Table,
    comparison: dict[str, Any],
    leaderboard_page: Path,
) -> dict[str, Any]:
    """One MLflow run of the comparison, and nested in it one per model and seed."""
    from ...comparison.record import record

    return record(
        variant,
        results=read(compared, results),
        leaderboard=leaderboard.to_pandas(),
        comparison=comparison,
        page=leaderboard_page,
    )


def data_digest(encoded: Path) -> str:
    """Of the encoded tensors, and of the impressions, groups and truths of the test split."""
    import pandas as pd

    from ...tensors import fingerprint

    rows = pd.read_parquet(encoded / SPLIT / "rows.parquet")
    digest = hashlib.sha256(fingerprint(encoded).encode())
    digest.update(pd.util.hash_pandas_object(rows, index=False).to_numpy().tobytes())
    return digest.hexdigest()[:24]


def facts(variant: Variant, encoded: Path, results: Sequence[Result], typed: str | None) -> dict[str, str]:
    """What a reader must know of a table: data, seeds, machine, date, command."""
    overall = results[0].metrics["overall"]
    where = sorted({f"{one.about['device']}, {one.about['threads']} threads" for one in results})
    found = {
        "data set": variant.schema.name,
        "domains": f"{variant.domain.name} ({len(results[0].metrics['domains'])})",
        "split": f"{variant.split.name}: {_count(encoded, 'train'):,} training, {overall['rows']:,} test rows",
        "features": variant.feature_set.name,
        "label": variant.label.name,
        "seeds": ", ".join(str(seed) for seed in sorted({one.seed for one in results})),
        "device": "; ".join(where),
        "date": time.strftime("%Y-%m-%d %H:%M"),
    }
    return found | ({"command": typed} if typed else {})


def command() -> str | None:
    """What was typed, where this is a run of Kedro's command line."""
    program = Path(sys.argv[0])
    if program.name == "kedro" or sys.argv[0] == "python -m kedro" or program.parent.name == "kedro":
        return shlex.join(["kedro", *sys.argv[1:]])
    return None


def _notes(results: Sequence[Result], base: str) -> list[str]:
    """What makes some numbers of these results incomparable."""
    notes = []
    if base not in {result.label for result in results}:
        notes.append(f"'{base}' was not among the models: there is no RelaImpr.")
    if len({(result.about["threads"], result.about["workers"], result.about["device"]) for result in results}) > 1:
        notes.append(
            "The speeds were taken under different circumstances (threads, trainings at the same time, device): do not "
            "compare them."
        )
    elif (together := int(results[0].about["workers"])) > 1:
        notes.append(f"{together} trainings ran at the same time: the speeds are those of each beside the others.")
    if len({(result.about["architecture"], result.about["code"]) for result in results}) > len(
        {result.about["architecture"] for result in results}
    ):
        notes.append("The code of models, layers or training changed between the trainings of some of these results.")
    return notes


def _count(encoded: Path, split: str) -> int:
    from ...tensors import EncodedSplit

    return EncodedSplit(encoded, split).rows


def _json(path: Path) -> Any:
    import json

    return json.loads(path.read_text(encoding="utf-8"))


def _null(value: float) -> float | None:
    return None if value != value else float(value)
