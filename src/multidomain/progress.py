"""Progress bars that stay readable: lively on a terminal, a line every few seconds in a log."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tqdm import tqdm

LOG_SECONDS = 15.0


def progress(*, total: int | None, what: str, unit: str = " rows", shown: bool = True) -> tqdm[Any]:
    """A bar over ``total`` rows, or whatever the unit, on standard error: share, rows/s, time left."""
    from tqdm import tqdm

    terminal = sys.stderr.isatty()
    return tqdm(
        total=total,
        desc=what,
        unit=unit,
        unit_scale=True,
        disable=not shown,
        dynamic_ncols=terminal,
        mininterval=0.2 if terminal else LOG_SECONDS,
    )
