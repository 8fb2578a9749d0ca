"""KuaiRand (Gao et al., CIKM 2022) as Zenodo hands it out: Pure, 1K or 27K, with the same columns in all three.

An impression is a line of a log, numbered in the order of the files' names and lines. ``log_standard_*`` holds what was
recommended, ``log_random_*`` videos drawn at random (``is_rand``); the latter may be missing. ``is_standard`` is the
opposite of ``is_rand``, so that a label can be one of recommended videos alone. A line that is there twice is two
impressions: lines have no number of their own that says they are one.

``video_features_statistic_*`` is not read: its numbers are averages over all thirty-one days, those of validation and
test included, and no date says from when they were known. What honest counts are, of earlier impressions, the feature
stage makes.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import DataError
from ..layout import IMPRESSION
from ..schema import Schema
from . import text
from .files import several
from .text import LINE, Between, Field, Form, Parsed

if TYPE_CHECKING:
    import ibis.expr.types as ir

TABS = tuple(str(tab) for tab in range(15))
YEAR = (1_640_966_400_000, 1_672_502_399_999)  # 2022 in Beijing, in milliseconds: another number is in other units
LAYOUT = re.compile(r"_(pure|1k|27k)(_part\d+)?\.csv$")
_WHOLE, _MAYBE = Field(type="int64"), Field(type="int64", nullable=True)
_FLAG = Field(type="int8", allowed=("0", "1"))
_FLAGS = ("is_click", "is_like", "is_follow", "is_comment", "is_forward", "is_hate", "long_view")


LOG = Form(
    columns={
        "user_id": _WHOLE,
        "video_id": _WHOLE,
        "date": _WHOLE,
        "hourmin": _WHOLE,
        "time_ms": _WHOLE,
        **dict.fromkeys(_FLAGS, _FLAG),
        "play_time_ms": _WHOLE,
        "duration_ms": _WHOLE,
        "profile_stay_time": _WHOLE,
        "comment_stay_time": _WHOLE,
        "is_profile_enter": _FLAG,
        "is_rand": _FLAG,
        "tab": Field(type="int64", allowed=TABS),
    },
    refine=Between("time_ms", *YEAR, "is no millisecond of 2022"),
)
USERS = Form(
    columns={
        "user_id": _WHOLE,
        "user_active_degree": Field(nullable=True),
        "is_lowactive_period": _MAYBE,
        "is_live_streamer": _MAYBE,  # -124 where it is not known
        "is_video_author": _MAYBE,
        "follow_user_num": _MAYBE,
        "follow_user_num_range": Field(nullable=True),
        "fans_user_num": _MAYBE,
        "fans_user_num_range": Field(nullable=True),
        "friend_user_num": _MAYBE,
        "friend_user_num_range": Field(nullable=True),
        "register_days": _MAYBE,
        "register_days_range": Field(nullable=True),
        **{f"onehot_feat{number}": _MAYBE for number in range(18)},
    },
    quotes=True,
    key="user_id",
)
VIDEOS = Form(
    columns={
        "video_id": _WHOLE,
        "author_id": _MAYBE,
        "video_type": Field(nullable=True),
        "upload_dt": Field(nullable=True),
        "upload_type": Field(nullable=True),
        "visible_status": _MAYBE,
        "video_duration": Field(type="float64", nullable=True),
        "server_width": _MAYBE,
        "server_height": _MAYBE,
        "music_id": _MAYBE,
        "music_type": _MAYBE,
        "tag": Field(nullable=True),
    },
    quotes=True,
    key="video_id",
)


def read(schema: Schema, files: Mapping[str, Path], work: Path) -> dict[str, ir.Table]:
    """Impressions with every column of the log, users and items with theirs, and what was set apart.

    More columns: ``timestamp``, ``hour`` (0 to 23, Beijing), ``is_standard``; ``main_tag`` (the first of ``tag``).

    Raises:
        DataError: the files are of several layouts, a header lacks a column, or a file has no row.
    """
    _one_layout(schema, files)
    logs = [text.parse(path, LOG, work) for name in ("log", "random") for path in several(files, name)]
    users = [text.parse(path, USERS, work) for path in several(files, "users")]
    videos = [text.parse(path, VIDEOS, work) for path in several(files, "videos")]
    return {
        "impressions": _impressions(logs),
        "users": _together(users).drop(LINE),
        "items": _items(_together(videos)),
        **text.together([*logs, *users, *videos]),
    }


def _one_layout(schema: Schema, files: Mapping[str, Path]) -> None:
    """User and video numbers of one layout are others in the next."""
    found: dict[str, str] = {}
    for path in files.values():
        if match := LAYOUT.search(path.name):
            found.setdefault(match[1], path.name)
    if len(found) > 1:
        raise DataError(
            f"Data set '{schema.name}': the files are of several layouts, whose user and video numbers do not agree: "
            f"{', '.join(f'{layout} ({name})' for layout, name in sorted(found.items()))}. Keep the files of one of "
            f"them where {schema.path} looks for them; for another, copy the schema under another name and folder."
        )


def _impressions(logs: Sequence[Parsed]) -> ir.Table:
    """The lines of all logs; a number is the line's, after those of the files before."""
    numbered, before = [], 0
    for log in logs:
        table = log.table()
        numbered.append(table.mutate(**{IMPRESSION: table[LINE] + before}).drop(LINE))
        before += log.lines + 1  # its header
    table = _union(numbered)
    return table.mutate(
        timestamp=table.time_ms.as_timestamp("ms"),
        hour=(table.hourmin // 100).cast("int64"),
        is_standard=(1 - table.is_rand).cast("int8"),
    )


def _items(videos: ir.Table) -> ir.Table:
    return videos.drop(LINE).mutate(main_tag=videos.tag.split(",")[0].strip())


def _together(files: Sequence[Parsed]) -> ir.Table:
    return _union([file.table() for file in files])


def _union(tables: Sequence[ir.Table]) -> ir.Table:
    return functools.reduce(lambda one, other: one.union(other), tables)
