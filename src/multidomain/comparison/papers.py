"""The papers' tables and figures: what each compares and the numbers it prints. One file each, ``conf/base/reproduce``.

The keys of such a file:

``title``, ``paper``, ``data``: what the table shows, where it is printed, what its authors measured on.
``theirs``: the columns as printed.
``ours``: our columns: ``name``; ``metric`` (see ``METRICS``); for a metric of one domain its number ``domain`` (1 is
    the first of the data set); where the metric is shown relative to another row, ``against``: that row's label, or
    ``first``: the first row of the group; and ``as``: how (see ``RELATIVE``).
``rows``: ``label``; ``group``, where the table has groups; ``architecture``, ``model``, ``training`` as an entry of a
    comparison has them; ``paper``: the printed values in the order of ``theirs``, null where the print cannot be read;
    ``terms``: for a formula of parameters, numbers and ``M`` (domains) that are summed.
``across``: true where the paper has its models side by side and its metrics below one another.
``trained``: false where sizes alone are compared: nothing is trained then.
``plot``: for a figure: ``kind`` (``line``, ``dots``), ``x`` (axis label), ``y`` (one of our columns).
``notes``: sentences below the table.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import ConfigurationError, unknown_key
from ..schema import project_root
from ..schema_reader import plain_yaml
from .entries import Entry, entry

METRICS = ("auc", "gauc", "logloss", "pcoc_range", "parameters", "parameters_rest", "training_flops", "terms")
SIZES = ("parameters", "parameters_rest", "training_flops", "terms")  # known without training
RELATIVE = ("rela_impr", "ratio", "difference", "multiple")
_KEYS = ("title", "paper", "data", "theirs", "ours", "rows", "across", "trained", "plot", "notes")
_COLUMN = ("name", "metric", "domain", "against", "as")
_ROW = ("label", "group", "architecture", "model", "training", "paper", "terms")
_PLOT = ("kind", "x", "y")
_KINDS = ("line", "dots")
FIRST = "first"


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column of ours."""

    name: str
    metric: str
    domain: int | None = None
    against: str | None = None
    how: str = "rela_impr"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row: what to train, and what the paper prints of it."""

    label: str
    architecture: str
    group: str | None = None
    model: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    paper: tuple[float | str | None, ...] = ()
    terms: tuple[int | str, ...] = ()

    @property
    def name(self) -> str:
        """Label and group: no two rows of a table have the same."""
        return f"{self.group}: {self.label}" if self.group else self.label


@dataclass(frozen=True, kw_only=True)
class PaperTable:
    """One table or figure of a paper."""

    name: str
    title: str
    paper: str
    data: str
    theirs: tuple[str, ...]
    ours: tuple[Column, ...]
    rows: tuple[Row, ...]
    across: bool = False
    trained: bool = True
    plot: Mapping[str, str] | None = None
    notes: tuple[str, ...] = ()
    digest: str = ""

    def against(self, row: Row, column: Column) -> Row | None:
        """The row that this one is measured against; None where the column is not relative."""
        if column.against is None:
            return None
        if column.against == FIRST:
            return next(other for other in self.rows if other.group == row.group)
        same = [other for other in self.rows if other.label == column.against]
        return next((other for other in same if other.group == row.group), same[0])


def folders() -> list[Path]:
    """Where tables are looked for, in order."""
    return [project_root() / "conf/local/reproduce", project_root() / "conf/base/reproduce"]


def names() -> list[str]:
    """Every table there is."""
    return sorted({path.stem for folder in folders() for path in folder.glob("*.yml")})


def load(name: str | None) -> PaperTable:
    """Read one table.

    Raises:
        ConfigurationError: there is none of that name (the message lists those there are), or its file is wrong.
    """
    if name is None:
        raise ConfigurationError(f"No table to reproduce: --params=table=NAME. There are: {', '.join(names())}.")
    for folder in folders():
        if (path := folder / f"{name}.yml").is_file():
            return parse(path)
    raise ConfigurationError(f"table {unknown_key(name, names())}")


def parse(path: Path) -> PaperTable:
    """Read one file; see :func:`load`."""
    text = path.read_text(encoding="utf-8")
    raw = plain_yaml(text, path)
    reader = _Reader(path)
    reader.keys("", raw, _KEYS, required=("title", "paper", "data", "theirs", "ours", "rows"))
    theirs = tuple(str(name) for name in raw["theirs"])
    rows = tuple(reader.row(number, one, theirs) for number, one in enumerate(raw["rows"], start=1))
    table = PaperTable(
        name=path.stem,
        title=str(raw["title"]),
        paper=str(raw["paper"]),
        data=str(raw["data"]),
        theirs=theirs,
        ours=tuple(reader.column(one) for one in raw["ours"]),
        rows=rows,
        across=bool(raw.get("across", False)),
        trained=bool(raw.get("trained", True)),
        plot=raw.get("plot"),
        notes=tuple(raw.get("notes", ())),
        digest=hashlib.sha256(text.encode()).hexdigest()[:16],
    )
    reader.table(table)
    return table


def planned(table: PaperTable, parameters: Mapping[str, Any]) -> tuple[list[Entry], dict[str, str]]:
    """The entries of a table's rows, and the rows that must be left out: name -> why.

    Raises:
        ConfigurationError: an option that is not known, or no row is left.
    """
    from ..models import architectures

    known = architectures()
    kept = [row for row in table.rows if row.architecture in known]
    missing = {row.name: f"there is no architecture '{row.architecture}'" for row in table.rows if row not in kept}
    if not kept:
        raise ConfigurationError(
            f"table {table.name}: none of its architectures is here. {'; '.join(sorted(set(missing.values())))}."
        )
    entries = []
    for row in kept:
        given = {"label": row.name, "architecture": row.architecture, "model": row.model, "training": row.training}
        entries.append(entry(given, parameters, known))
        entries[-1].check()
    return entries, missing


class _Reader:
    """Complaints name the file, the place and what is allowed there."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def keys(self, where: str, raw: Any, allowed: Sequence[str], required: Sequence[str] = ()) -> None:
        if not isinstance(raw, Mapping):
            raise self.wrong(where, f"must be a group of {', '.join(allowed)}, not {raw!r}")
        for key in raw:
            if key not in allowed:
                raise self.wrong(where, unknown_key(key, allowed))
        for key in required:
            if key not in raw:
                raise self.wrong(where, f"'{key}' is missing")

    def column(self, raw: Any) -> Column:
        self.keys("ours", raw, _COLUMN, required=("name", "metric"))
        where = f"ours.{raw['name']}"
        for key, allowed in (("metric", METRICS), ("as", RELATIVE)):
            if raw.get(key, allowed[0]) not in allowed:
                raise self.wrong(f"{where}.{key}", unknown_key(raw[key], allowed))
        return Column(
            name=str(raw["name"]),
            metric=raw["metric"],
            domain=raw.get("domain"),
            against=raw.get("against"),
            how=raw.get("as", RELATIVE[0]),
        )

    def row(self, number: int, raw: Any, theirs: Sequence[str]) -> Row:
        where = f"rows[{number}]"
        self.keys(where, raw, _ROW, required=("label", "architecture", "paper"))
        printed = tuple(raw["paper"])
        if len(printed) != len(theirs):
            raise self.wrong(f"{where}.paper", f"has {len(printed)} values for {len(theirs)} columns ({list(theirs)})")
        return Row(
            label=str(raw["label"]),
            group=raw.get("group"),
            architecture=str(raw["architecture"]),
            model=raw.get("model") or {},
            training=raw.get("training") or {},
            paper=printed,
            terms=tuple(raw.get("terms", ())),
        )

    def table(self, table: PaperTable) -> None:
        found = [row.name for row in table.rows]
        for name in found:
            if found.count(name) > 1:
                raise self.wrong("rows", f"'{name}' is there {found.count(name)} times")
        for column in table.ours:
            if column.against not in (None, FIRST, *(row.label for row in table.rows)):
                raise self.wrong(
                    f"ours.{column.name}.against",
                    unknown_key(column.against, [FIRST, *(row.label for row in table.rows)]),
                )
            if not table.trained and column.metric not in SIZES:
                raise self.wrong(f"ours.{column.name}", f"'{column.metric}' needs training; without it: {SIZES}")
        if table.plot is not None:
            self.keys("plot", table.plot, _PLOT, required=_PLOT)
            if table.plot["kind"] not in _KINDS:
                raise self.wrong("plot.kind", unknown_key(table.plot["kind"], _KINDS))
            if table.plot["y"] not in (ours := [column.name for column in table.ours]):
                raise self.wrong("plot.y", unknown_key(table.plot["y"], ours))

    def wrong(self, where: str, what: str) -> ConfigurationError:
        place = f"{self.path.name}: {where}" if where else self.path.name
        return ConfigurationError(f"{place}: {what.rstrip('.')}.")
