"""KuaiRand's files in the three layouts that Zenodo hands out.

What makes people click stands in these columns:

====================  ==========================================================
simulated             written
====================  ==========================================================
domain                ``tab``: the five largest, 1 % of their rows under the others
age, hobby            ``follow_user_num_range``, ``fans_user_num_range``
occupation, city      ``onehot_feat5``, ``onehot_feat2``
income, device        ``user_active_degree``, ``onehot_feat1``
population            ``onehot_feat10``
category              the first of ``tag``; 2 % of the videos have none
brand                 ``author_id`` (of one brand each) and ``upload_type``
price                 ``music_type``
daypart               ``hourmin``, in Beijing
====================  ==========================================================

The other columns are drawn by chance, within the values that the vendor describes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from multidomain.schema import Simulation
from multidomain.simulation.generate import Log
from multidomain.simulation.world import START, Ints, World, stream

from . import Bad, LineFile, codes, parts

DAYS, SECOND = 31, 14  # from 8 April; the second pair of logs begins on the fifteenth day
MIDNIGHT = np.datetime64("2022-04-07T16:00", "us")  # of 8 April in Beijing
BEIJING = np.timedelta64(8, "h")
RANDOM = 0.05  # the share of the second period's rows in the largest tab that show a random video
TABS, OTHER_TABS = np.array([1, 0, 4, 2, 6]), np.array([3, 5, 7, 8, 9, 10, 11, 12, 13, 14])
BRANDS = 12
ACTIVE = ("full_active", "high_active", "middle_active", "UNKNOWN")
UPLOADS = (
    "LongImport", "ShortImport", "LongCamera", "ShortCamera", "Web", "Kmovie", "PictureSet", "LongPicture",
    "PhotoCopy", "ShareFromOtherApp", "FollowShoot", "UNKNOWN",
)  # fmt: skip
FOLLOW = {"0": 0, "(0,10]": 1, "(10,50]": 11, "(50,100]": 51, "(100,150]": 101, "(150,250]": 151, "(250,500]": 251}
FOLLOW |= {"500+": 501}
FANS = {"0": 0, "[1,10)": 1, "[10,100)": 10, "[100,1k)": 100, "[1k,5k)": 1_000, "[5k,1w)": 5_000, "[1w,10w)": 10_000}
FANS |= {"[10w,100w)": 100_000}
FRIENDS = {"0": 0, "[1,5)": 1, "[5,30)": 5, "[30,60)": 30, "[60,120)": 60, "[120,250)": 120, "250+": 250}
REGISTERED = {"15-30": 15, "31-60": 31, "61-90": 61, "91-180": 91, "181-365": 181, "366-730": 366, "730+": 731}
ONEHOT = (2, 7, 50, 1471, 15, 34, 3, 118, 454, 7, 5, 5, 2, 2, 2, 2, 2, 2)  # values of onehot_feat0, 1, …
SOMETIMES_EMPTY = (4, 12, 13, 14, 15, 16, 17)  # these are written as 1.0
LOG = (
    "user_id,video_id,date,hourmin,time_ms,is_click,is_like,is_follow,is_comment,is_forward,is_hate,long_view,"
    "play_time_ms,duration_ms,profile_stay_time,comment_stay_time,is_profile_enter,is_rand,tab"
)
USERS = (
    "user_id,user_active_degree,is_lowactive_period,is_live_streamer,is_video_author,follow_user_num,"
    "follow_user_num_range,fans_user_num,fans_user_num_range,friend_user_num,friend_user_num_range,register_days,"
    "register_days_range," + ",".join(f"onehot_feat{number}" for number in range(18))
)
VIDEOS = (
    "video_id,author_id,video_type,upload_dt,upload_type,visible_status,video_duration,server_width,server_height,"
    "music_id,music_type,tag"
)
STATISTICS = (
    "video_id,counts,show_cnt,show_user_num,play_cnt,play_user_num,play_duration,complete_play_cnt,"
    "complete_play_user_num,valid_play_cnt,valid_play_user_num,long_time_play_cnt,long_time_play_user_num,"
    "short_time_play_cnt,short_time_play_user_num,play_progress,comment_stay_duration,like_cnt,like_user_num,"
    "click_like_cnt,double_click_cnt,cancel_like_cnt,cancel_like_user_num,comment_cnt,comment_user_num,"
    "direct_comment_cnt,reply_comment_cnt,delete_comment_cnt,delete_comment_user_num,comment_like_cnt,"
    "comment_like_user_num,follow_cnt,follow_user_num,cancel_follow_cnt,cancel_follow_user_num,share_cnt,"
    "share_user_num,download_cnt,download_user_num,report_cnt,report_user_num,reduce_similar_cnt,"
    "reduce_similar_user_num,collect_cnt,collect_user_num,cancel_collect_cnt,cancel_collect_user_num,"
    "direct_comment_user_num,reply_comment_user_num,share_all_cnt,share_all_user_num,outsite_share_all_cnt"
)


@dataclass(frozen=True, kw_only=True)
class Layout:
    """One of the three: into how many files a long one is cut, and its size where nothing else is asked for."""

    parts: int
    users: int
    rows_per_user: int
    rows_per_video: int

    def files(self, name: str, layout: str, several: int) -> list[str]:
        """The names of one long file."""
        if self.parts == 1:
            return [f"{name}_{layout}.csv"]
        return [f"{name}_{layout}_part{number}.csv" for number in range(1, several + 1)]


LAYOUTS: Mapping[str, Layout] = {
    "pure": Layout(parts=1, users=27_285, rows_per_user=96, rows_per_video=345),
    "1k": Layout(parts=1, users=1_000, rows_per_user=1_000, rows_per_video=3),
    "27k": Layout(parts=2, users=27_285, rows_per_user=500, rows_per_video=10),
}


def write(
    folder: Path,
    *,
    rows: int,
    seed: int = 2021,
    bad: Mapping[str, Sequence[Bad]] = MappingProxyType({}),
    layout: str = "pure",
    preset: str = "combinations",
    users: int | None = None,
    videos: int | None = None,
    crlf: bool = False,
) -> dict[str, LineFile]:
    """Write the files of one layout, ``rows`` lines in all logs together.

    Args:
        folder: where; it is made.
        rows: good lines of the logs.
        seed: equal seeds give equal bytes.
        bad: file name -> lines to put between the good ones.
        layout: pure, 1k or 27k.
        preset: what decides about clicks (:mod:`multidomain.simulation.presets`); one that fixes no shares of domains.
        users: how many, by default as many as fit the layout.
        videos: likewise.
        crlf: whether lines end as on Windows.
    """
    form = LAYOUTS[layout]
    users = users or max(20, min(form.users, rows // form.rows_per_user))
    videos = videos or max(30, rows // form.rows_per_video)
    simulation = Simulation(
        preset=preset, rows=rows, users=users, items=videos, days=DAYS, domains=len(TABS), seed=seed
    )
    first = form.files("log_standard_4_08_to_4_21", layout, 2)
    second = form.files("log_standard_4_22_to_5_08", layout, 2)
    random = f"log_random_4_22_to_5_08_{layout}.csv"
    profiles, basics = f"user_features_{layout}.csv", f"video_features_basic_{layout}.csv"
    statistics = form.files("video_features_statistic", layout, 3)
    headers = dict.fromkeys([*first, *second, random], LOG) | {profiles: USERS, basics: VIDEOS}
    headers |= dict.fromkeys(statistics, STATISTICS)
    end = b"\r\n" if crlf else b"\n"
    with contextlib.ExitStack() as stack:
        files = {
            name: stack.enter_context(LineFile(folder / name, header=header.encode(), bad=bad.get(name, ()), end=end))
            for name, header in headers.items()
        }
        durations = np.zeros(videos, np.int64)
        for number, log in enumerate(parts(simulation)):
            if number == 0:
                files[profiles].write(_users(log.world, seed))
                columns, durations = _videos(log.world, seed)
                files[basics].write(columns)
                for name, some in zip(statistics, np.array_split(np.arange(videos), len(statistics)), strict=True):
                    files[name].write(_statistics(some, seed))
            columns, period, is_random = _log(log, durations, stream(seed, "kuairand log", number))
            for chosen, names in ((period == 0, first), ((period == 1) & ~is_random, second), (is_random, [random])):
                for name, some in zip(names, np.array_split(np.flatnonzero(chosen), len(names)), strict=True):
                    files[name].write([column.take(pa.array(some)) for column in columns])
    return files


def _log(log: Log, durations: Ints, random: np.random.Generator) -> tuple[list[pa.Array], Ints, npt.NDArray[np.bool_]]:
    """The columns of a part's lines, 0 or 1 for their period, and whether they show a random video."""
    rows, clicked, size = log.rows, log.clicked, len(log.rows)
    time = MIDNIGHT + (rows.time - START)
    local = time + BEIJING
    period = (local >= (MIDNIGHT + BEIJING) + np.timedelta64(SECOND, "D")).astype(np.int64)
    tab = TABS[rows["domain"]]
    is_random = (period == 1) & (tab == TABS[0]) & (random.random(size) < RANDOM)
    elsewhere = (random.random(size) < 0.01) & ~is_random
    tab = np.where(elsewhere, OTHER_TABS[random.integers(0, len(OTHER_TABS), size)], tab)
    duration = durations[rows["item"]]
    length = np.where(duration > 0, duration, 30_000)
    long_view = clicked & ((random.random(size) < 0.7) | (length <= 7_000))
    low = np.where(long_view, np.minimum(length, 18_000), np.where(clicked, 7_001, 0))
    high = np.where(long_view, 3 * length + 18_000, np.where(clicked, np.minimum(length, 18_000), 7_000))
    high = np.where(clicked, high, np.minimum(high, length))
    played = low + (random.random(size) * (high - low)).astype(np.int64)
    seldom = [clicked & (random.random(size) < share * log.truth) for share in (0.15, 0.01, 0.02, 0.01)]
    hate = ~clicked & (random.random(size) < 0.001)
    enters = clicked & (random.random(size) < 0.04)
    return (
        [
            codes(rows["user"]),
            codes(rows["item"]),
            pc.strftime(pa.array(local), "%Y%m%d"),
            codes((local - local.astype("datetime64[D]")).astype("timedelta64[h]").astype(np.int64) * 100),
            codes(time.astype("datetime64[ms]").astype(np.int64)),
            *(codes(flag.astype(np.int8)) for flag in (clicked, *seldom, hate, long_view)),
            codes(played),
            codes(duration),
            codes(np.where(enters, random.integers(500, 60_000, size), 0)),
            codes(np.where(seldom[2], random.integers(500, 60_000, size), 0)),
            codes(enters.astype(np.int8)),
            codes(is_random.astype(np.int8)),
            codes(tab),
        ],
        period,
        is_random,
    )


def _users(world: World, seed: int) -> list[pa.Array]:
    profile, size = world.profile, len(world.activity)
    random = stream(seed, "kuairand users")
    onehot = {number: random.integers(0, card, size) for number, card in enumerate(ONEHOT)}
    onehot |= {1: profile["device"], 2: profile["city"], 5: profile["occupation"], 10: profile["population"]}
    friends, registered = random.integers(0, len(FRIENDS), size), random.integers(0, len(REGISTERED), size)
    return [
        codes(np.arange(size)),
        _named(ACTIVE, profile["income"]),
        codes(random.integers(0, 2, size)),
        codes(random.choice([-124, 1], size, p=[0.8, 0.2])),
        codes(random.integers(0, 2, size)),
        *_range(FOLLOW, profile["age"], random),
        *_range(FANS, profile["hobby"], random),
        *_range(FRIENDS, friends, random),
        *_range(REGISTERED, registered, random),
        *(_decimal(value, random, 0.02) if n in SOMETIMES_EMPTY else codes(value) for n, value in onehot.items()),
    ]


def _videos(world: World, seed: int) -> tuple[list[pa.Array], Ints]:
    """The columns, and the duration of each video in milliseconds, 0 where it is not known."""
    item, size = world.item, len(world.popularity)
    random = stream(seed, "kuairand videos")
    sizes = np.array([(720, 1280), (1280, 720), (720, 960), (1080, 1920)])[random.integers(0, 4, size)]
    duration = np.where(random.random(size) < 0.03, 0, random.integers(3_000, 180_000, size))
    authors = random.integers(0, max(1, size // 60), size) * BRANDS + item["brand"]
    day = np.datetime64("2022-05-08") - random.integers(0, 400, size)
    more = pc.binary_join_element_wise('"', codes(item["category"]), ",", codes(random.integers(10, 70, size)), '"', "")
    tag = pc.if_else(pa.array(random.random(size) < 0.4), more, codes(item["category"]))
    columns = [
        codes(np.arange(size)),
        codes(authors),
        _named(("NORMAL", "AD"), (random.random(size) < 0.01).astype(np.int64)),
        pa.array(day).cast(pa.string()),
        _named(UPLOADS, item["brand"]),
        _decimal(random.integers(0, 3, size), random),
        pc.if_else(pa.array(duration > 0), _decimal(duration, random), None),
        _decimal(sizes[:, 0], random),
        _decimal(sizes[:, 1], random),
        codes(random.integers(10**8, 10**10, size)),
        _decimal(item["price"], random),
        pc.if_else(pa.array(random.random(size) < 0.02), None, tag),
    ]
    return columns, duration


def _statistics(videos: Ints, seed: int) -> list[pa.Array]:
    """Averages of any size: nothing reads them."""
    random = stream(seed, "kuairand statistics", int(videos[0]) if len(videos) else 0)
    averages = [np.round(random.lognormal(0.0, 1.0, len(videos)), 3) for _ in STATISTICS.split(",")[2:]]
    return [codes(videos), codes(random.integers(1, 100, len(videos))), *(codes(values) for values in averages)]


def _range(ranges: Mapping[str, int], chosen: Ints, random: np.random.Generator) -> tuple[pa.Array, pa.Array]:
    """A number within the chosen range, and the range: in quotes where it holds a comma."""
    lowest = np.array(list(ranges.values()))
    after = np.append(lowest[1:], 10 * lowest[-1])
    number = lowest[chosen] + (random.random(len(chosen)) * (after - lowest)[chosen]).astype(np.int64)
    return codes(number), _named([f'"{name}"' if "," in name else name for name in ranges], chosen)


def _named(names: Sequence[str], chosen: Ints) -> pa.Array:
    return pa.array(names).take(pa.array(chosen))


def _decimal(values: Ints, random: np.random.Generator, empty: float = 0.0) -> pa.Array:
    """Whole numbers as ``1.0``, some missing."""
    written = pc.binary_join_element_wise(codes(values), ".0", "")
    return pc.if_else(pa.array(random.random(len(values)) < empty), None, written)
