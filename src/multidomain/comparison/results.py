"""The result of one entry trained with one seed: a folder that holds everything a table needs of it.

``<results>/<architecture>-<digest>/seed-<seed>/`` with ``metrics.json``, ``predictions.parquet``, ``history.csv`` and
``result.json``. The digest is of the configuration and of the encoded data, whatever the label: two tables that ask for
the same model share its results, and a changed configuration finds none.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import DataError
from .entries import Entry, digest

if TYPE_CHECKING:
    import pandas as pd

FILES = ("result.json", "metrics.json", "predictions.parquet", "history.csv")


@dataclass(frozen=True)
class Key:
    """What a result is of.

    Attributes:
        entry: architecture, options, training.
        seed: of the training.
        data: digest of the encoded data.
    """

    entry: Entry
    seed: int
    data: str

    @property
    def name(self) -> str:
        """``star, seed 1``"""
        return f"{self.entry.label}, seed {self.seed}"

    @cached_property
    def digest(self) -> str:
        """Of configuration, seed and data."""
        return digest([self.entry.settings(), self.seed, self.data])

    @cached_property
    def place(self) -> Path:
        """The result's folder below that of all results."""
        configuration = digest([self.entry.settings(), self.data])[:12]
        return Path(f"{self.entry.architecture}-{configuration}") / f"seed-{self.seed}"

    def is_there(self, results: Path) -> bool:
        """Whether the result is complete and of this configuration, seed and data."""
        folder = results / self.place
        if not all((folder / name).is_file() for name in FILES):
            return False
        try:
            found = json.loads((folder / "result.json").read_text(encoding="utf-8"))
        except ValueError:
            return False
        return bool(found.get("digest") == self.digest)

    def differences(self, results: Path) -> str | None:
        """How the newest result of this label and seed differs from what is wanted now; None where there is none."""
        others = []
        for path in results.glob(f"*/seed-{self.seed}/result.json"):
            try:
                found = json.loads(path.read_text(encoding="utf-8"))
                if found["label"] == self.entry.label and found["digest"] != self.digest:
                    others.append(found)
            except (ValueError, KeyError):
                continue
        if not others:
            return None
        newest = max(others, key=lambda found: str(found.get("made", "")))
        return _differing(newest, self)


@dataclass(frozen=True, kw_only=True)
class Result:
    """A result read back.

    Attributes:
        label: what the table calls it.
        folder: where it is.
        about: ``result.json``: configuration, sizes, speeds, circumstances.
        metrics: as :func:`multidomain.evaluation.report.evaluate` gives them.
    """

    label: str
    folder: Path
    about: Mapping[str, Any]
    metrics: Mapping[str, Any]

    @classmethod
    def read(cls, folder: Path, label: str) -> Result:
        """Read ``result.json`` and ``metrics.json``.

        Raises:
            DataError: a file is missing or damaged.
        """
        try:
            about, metrics = (
                json.loads((folder / name).read_text(encoding="utf-8")) for name in ("result.json", "metrics.json")
            )
        except (OSError, ValueError) as error:
            raise DataError(
                f"The result of '{label}' cannot be read from {folder}: {error}. Run the comparison again without "
                "--only-missing-outputs: it makes what is missing."
            ) from error
        return cls(label=label, folder=folder, about=about, metrics=metrics)

    @property
    def seed(self) -> int:
        """The seed it was trained with."""
        return int(self.about["seed"])

    def predictions(self) -> pd.DataFrame:
        """``impression_id, domain, label, score``, one row per row of the test split."""
        import pandas as pd

        return pd.read_parquet(self.folder / "predictions.parquet")

    def history(self) -> pd.DataFrame:
        """One row per epoch."""
        import pandas as pd

        return pd.read_csv(self.folder / "history.csv")


def by_label(results: Iterable[Result]) -> dict[str, list[Result]]:
    """The results of each label, in order of their seeds."""
    grouped: dict[str, list[Result]] = {}
    for result in results:
        grouped.setdefault(result.label, []).append(result)
    return {label: sorted(each, key=lambda result: result.seed) for label, each in grouped.items()}


def _differing(found: Mapping[str, Any], wanted: Key) -> str:
    settings = wanted.entry.settings()
    if found.get("architecture") != settings["architecture"]:
        return f"architecture {settings['architecture']}, was {found.get('architecture')}"
    parts = []
    for part in ("model", "training"):
        before, now = found.get(part, {}), json.loads(json.dumps(settings[part], default=str))
        parts += [f"{part}.{k} {now.get(k)}, was {before.get(k)}" for k in now if now.get(k) != before.get(k)]
    if found.get("data") != wanted.data:
        parts.append("other encoded data")
    return "; ".join(parts) or "another configuration"
