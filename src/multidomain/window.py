"""Which days of a log a run knows of, and which of them it learns: the parameter ``window``.

Days are of the log's own clock, UTC, and whole. A run for one day reads the same rows whenever it takes place, whatever
has come since: that is what makes the run of a day repeatable, and a missed one possible later.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Any

from .errors import ConfigurationError, unknown_key

if TYPE_CHECKING:
    import ibis.expr.types as ir

PREVIOUS = "previous"  # of the parameter warm_start: what the day before left


@dataclass(frozen=True, kw_only=True)
class Window:
    """Days of a log.

    Attributes:
        until: the last day that is known; later rows are not read. None: all are.
        days: so many days up to then are split, trained and judged on; None: all.
        lookback: so many days before those are read beside them, for features and vocabularies; None: all.
    """

    until: date | None = None
    days: int | None = None
    lookback: int | None = None

    @classmethod
    def read(cls, given: Mapping[str, Any] | None) -> Window:
        """From the parameter ``window``.

        Raises:
            ConfigurationError: an unknown setting, no date, no number of days, or days without the last one.
        """
        given = given or {}
        allowed = [one.name for one in fields(cls)]
        for name in given:
            if name not in allowed:
                raise ConfigurationError(f"window: {unknown_key(name, allowed)}")
        until = _day(given.get("until"))
        days, lookback = (_number(name, given.get(name), least) for name, least in (("days", 1), ("lookback", 0)))
        for name, value, needed, there in (("days", days, "until", until), ("lookback", lookback, "days", days)):
            if value is not None and there is None:
                raise ConfigurationError(
                    f"window.{name} is {value}, but window.{needed} is not set: days are counted back from the last. "
                    "Set it, such as --params=window.until=2000-11-22,window.days=1,window.lookback=30"
                )
        return cls(until=until, days=days, lookback=lookback)

    @property
    def end(self) -> datetime | None:
        """The midnight at which the last day ends; rows are strictly before it."""
        return None if self.until is None else datetime(*self.until.timetuple()[:3]) + timedelta(days=1)

    @property
    def first(self) -> datetime | None:
        """The midnight from which on rows are trained and judged on."""
        return None if self.end is None or self.days is None else self.end - timedelta(days=self.days)

    @property
    def earliest(self) -> datetime | None:
        """The midnight from which on rows are read."""
        return None if self.first is None or self.lookback is None else self.first - timedelta(days=self.lookback)

    def known(self, rows: ir.Table, column: str) -> ir.Table:
        """The rows that are read."""
        return _between(rows, column, self.earliest, self.end)

    def examples(self, rows: ir.Table, column: str = "timestamp") -> ir.Table:
        """Of the rows that are read those that are trained and judged on."""
        return _between(rows, column, self.first, None)

    def earlier(self, rows: ir.Table, column: str = "timestamp") -> ir.Table:
        """The others; asked for where there may be some, with ``days``."""
        return _between(rows, column, None, self.first)


def _between(rows: ir.Table, column: str, start: datetime | None, end: datetime | None) -> ir.Table:
    """The rows from ``start`` on and before ``end``; None is no bound."""
    import ibis

    time = rows[column]
    if start is not None:
        rows = rows.filter(time >= ibis.literal(start).cast(time.type()))
    if end is not None:
        rows = rows.filter(time < ibis.literal(end).cast(time.type()))
    return rows


def _day(given: Any) -> date | None:
    if given is None or (isinstance(given, date) and not isinstance(given, datetime)):
        return given
    try:
        return date.fromisoformat(str(given))
    except ValueError:
        raise ConfigurationError(f"window.until must be a day such as 2000-11-22, got {given!r}") from None


def _number(name: str, given: Any, least: int) -> int | None:
    if given is None or (isinstance(given, int) and not isinstance(given, bool) and given >= least):
        return given
    raise ConfigurationError(f"window.{name} must be a whole number of days from {least} up, or null, got {given!r}")
