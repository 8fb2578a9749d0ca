"""What is measured: one setting is one model on one log. Widths are the same for every side."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

FIELDS, DIM, HIDDEN = 20, 16, (128, 64, 32)
EXPERTS, EXPERT, TOWER = 4, (128, 64), (32,)  # mmoe; ple and cgc have one expert per domain and one shared
ATTENTION = 36  # din
LEARNING_RATE, SEED = 1e-3, 2021
CANDIDATE, HISTORY = "field_0", "hist_field_0"  # deepctr-torch wants the history to be called hist_<candidate>
TASKS = ("shared_bottom", "mmoe", "cgc", "ple")  # a task per domain; cgc: PLE of one level
AXES = ("ids", "domains", "history")


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One model on one log.

    Attributes:
        axis: which figure it belongs to: ids, domains or history.
        model: dnn, din or one of ``TASKS``.
        ids: of all fields together.
        domains, history: M; T, 0 without history.
        batch_size: rows per step.
        rows: of the training split.
        learn: rows after which AUC is taken; 0 takes none.
        seconds: of training, after which AUC is taken as well.
    """

    axis: str
    model: str
    ids: int
    domains: int = 3
    history: int = 0
    batch_size: int = 2048
    rows: int = 1_000_000
    test_rows: int = 50_000
    learn: int = 0
    seconds: float = 10.0

    @property
    def log(self) -> str:
        """The name of the log it reads."""
        return f"{self.ids}_{self.domains}_{self.history}_{self.rows}"

    @property
    def place(self) -> int:
        """Where it stands on its axis."""
        return {"ids": self.ids, "domains": self.domains, "history": self.history}[self.axis]

    @property
    def title(self) -> str:
        """In words."""
        parts = [f"{self.model}, {self.ids:,} ids"]
        parts += [f"{self.domains} domains"] if self.model in TASKS else []
        parts += [f"{self.history} events"] if self.history else []
        return ", ".join([*parts, f"batch {self.batch_size}"])


def full() -> Iterator[Setting]:
    """What ``make bench`` measures."""
    for batch_size in (2048, 8192):
        for ids, learn in ((20_000, 1_000_000), (1_000_000, 500_000), (10_000_000, 200_000)):
            learn = learn if batch_size == 2048 else 0
            yield Setting(axis="ids", model="dnn", ids=ids, batch_size=batch_size, rows=2_500_000, learn=learn)
    for model in TASKS:
        for domains in (3, 30, 100, 300)[: 3 if model == "ple" else 4]:
            learn = 300_000 if domains == 3 else 0
            yield Setting(axis="domains", model=model, ids=20_000, domains=domains, learn=learn)
    for history in (10, 50, 200):
        learn = 200_000 if history == 50 else 0
        yield Setting(axis="history", model="din", ids=20_000, history=history, rows=300_000, learn=learn)


def quick() -> Iterator[Setting]:
    """One small setting of every kind."""
    small = {"rows": 40_000, "test_rows": 4_000, "learn": 16_384, "seconds": 1.0, "batch_size": 512}
    yield Setting(axis="ids", model="dnn", ids=2_000, **small)  # type: ignore[arg-type]
    yield Setting(axis="domains", model="mmoe", ids=2_000, domains=3, **small)  # type: ignore[arg-type]
    yield Setting(axis="history", model="din", ids=2_000, history=10, **small)  # type: ignore[arg-type]
