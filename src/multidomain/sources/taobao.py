"""Taobao's UserBehavior.csv as Tianchi hands it out, with the split of ADS (Chai et al., SIGIR 2025, section 3.1).

A line is user, item, category, behavior, timestamp in seconds; there is no header. A page view is negative, any other
behavior positive (``positive``). Days are those of Beijing: the first seven train, the last two test. The paper names
no validation rows; here they are the last tenth of the seven days by time (16 h 48 min), as the test follows the
training in time, too, and a random tenth would be easier to predict. ``split`` holds the three.

The vendor's nine days are 2017-11-25 to 2017-12-03. Lines outside (others have counted 55,576 of 100,150,807, some of
them years away) are set apart: their clock was wrong, and with it their place in every history and split. A line that
is there twice is two impressions: lines have no number that says they are one.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import SchemaError
from ..layout import IMPRESSION
from ..schema import SPLITS, Schema
from . import text
from .owners import usual_values
from .text import LINE, Between, Field, Form

if TYPE_CHECKING:
    import ibis.expr.types as ir

BEHAVIORS = ("pv", "buy", "cart", "fav")
BEIJING = 8 * 3_600  # seconds ahead of UTC
DAY = 86_400
START = 1_511_539_200  # 2017-11-25 00:00 in Beijing, in seconds since 1970
TEST = START + 7 * DAY
VALIDATION = TEST - 7 * DAY // 10
END = START + 9 * DAY


FORM = Form(
    columns={
        "user_id": Field(type="int64"),
        "item_id": Field(type="int64"),
        "category_id": Field(type="int64"),
        "behavior": Field(allowed=BEHAVIORS),
        "timestamp": Field(type="int64"),
    },
    header=False,
    refine=Between("timestamp", START, END - 1, "is outside 2017-11-25 to 2017-12-03 in Beijing"),
)


def read(schema: Schema, files: Mapping[str, Path], work: Path) -> dict[str, ir.Table]:
    """Impressions with every column of the file, ``positive``, ``hour`` (0 to 23, Beijing) and ``split``; users; items.

    An item has the category most of its lines name.

    Raises:
        SchemaError: not exactly one file.
        DataError: none of its lines is a row, or it cannot be read.
    """
    if len(files) != 1:
        raise SchemaError(f"{schema.path}: files: source taobao reads one file, not {len(files)}.")
    path = next(iter(files.values()))
    parsed = text.parse(path, FORM, work)
    lines = parsed.table()
    return {
        "impressions": _impressions(lines),
        "users": lines.select("user_id").distinct().order_by("user_id"),
        "items": usual_values(lines, "item_id", ["item_id", "category_id"], what="items", origin=path.name),
        **text.together([parsed]),
    }


def _impressions(lines: ir.Table) -> ir.Table:
    import ibis

    time = lines.timestamp
    split = ibis.cases((time < VALIDATION, SPLITS[0]), (time < TEST, SPLITS[1]), else_=SPLITS[2])
    return lines.mutate(
        timestamp=time.as_timestamp("s"),
        hour=((time + BEIJING) % DAY // 3_600).cast("int64"),
        positive=(lines.behavior != BEHAVIORS[0]).cast("int8"),
        split=split,
    ).rename({IMPRESSION: LINE})
