"""Taobao's UserBehavior.csv: no header, the lines of a user together, in order of time.

What makes people act stands in these columns: a category belongs to one simulated domain, category and brand, so that
``category_id`` tells all three; ``item_id`` also tells the price, the timestamp the daypart (in Beijing), and
``user_id``, with a few hundred lines each, the profile. The users of a part (see :func:`benchmarks.raw_files.parts`)
are its own: their histories are whole, as an effect of earlier clicks needs them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pyarrow as pa

from multidomain.schema import Simulation
from multidomain.simulation.generate import Log
from multidomain.simulation.world import ITEM, START, Ints, World, stream

from . import Bad, LineFile, codes, parts
from .lines import PART

NAME = "UserBehavior.csv"
DAYS, MIDNIGHT = 9, np.datetime64("2017-11-24T16:00", "us")  # of 25 November in Beijing
DEPARTMENTS = 8  # simulated domains
CATEGORIES = 9_439
ROWS_PER_USER, ROWS_PER_ITEM = 300, 40
BEHAVIORS, SHARES = ("cart", "fav", "buy"), (0.53, 0.28, 0.19)  # of those that are no page view


def write(
    folder: Path,
    *,
    rows: int,
    seed: int = 2021,
    bad: Mapping[str, Sequence[Bad]] = MappingProxyType({}),
    preset: str = "interest",
    users: int | None = None,
    items: int | None = None,
    categories: int = CATEGORIES,
    crlf: bool = False,
) -> dict[str, LineFile]:
    """Write the file, of ``rows`` good lines.

    Args:
        folder: where; it is made.
        rows: good lines.
        seed: equal seeds give equal bytes.
        bad: file name -> lines to put between the good ones.
        preset: what decides about actions (:mod:`multidomain.simulation.presets`); one that fixes no shares of domains.
        users: of each part of 200,000 rows; by default as many as have 300 rows each on average.
        items: by default as many as have 40 rows each on average.
        categories: how many, if there are as many items; at least one for each domain, category and brand, 960.
        crlf: whether lines end as on Windows.
    """
    users = users or max(2, min(rows, PART) // ROWS_PER_USER)
    items = max(1, (items or rows // ROWS_PER_ITEM) // DEPARTMENTS)
    simulation = Simulation(
        preset=preset, rows=rows, users=users, items=items, days=DAYS, domains=DEPARTMENTS, seed=seed
    )
    with LineFile(folder / NAME, bad=bad.get(NAME, ()), end=b"\r\n" if crlf else b"\n") as file:
        for number, log in enumerate(parts(simulation)):
            if number == 0:
                category = _categories(log.world, categories, seed)
            file.write(_lines(log, category, number * users, stream(seed, "taobao log", number)))
    return {NAME: file}


def _lines(log: Log, category: Ints, first_user: int, random: np.random.Generator) -> list[pa.Array]:
    rows = log.rows
    domain, item = rows["domain"], rows["item"]
    seconds = (MIDNIGHT + (rows.time - START)).astype("datetime64[s]").astype(np.int64)
    action = 1 + random.choice(len(BEHAVIORS), len(rows), p=SHARES)
    return [
        codes(1 + first_user + rows["user"]),
        codes(1 + domain * log.rows.cards["item"] + item),
        codes(category[domain, item]),
        pa.array(("pv", *BEHAVIORS)).take(pa.array(np.where(log.clicked, action, 0))),
        codes(seconds),
    ]


def _categories(world: World, categories: int, seed: int) -> Ints:
    """(domain, item): the category's number.

    Each domain, category and brand has a like number of them: its most popular items have one each, the others, about
    half, one together. So none is lost with the items of few lines.
    """
    cells = DEPARTMENTS * ITEM["category"] * ITEM["brand"]
    pair = world.item["category"] * ITEM["brand"] + world.item["brand"]
    order = np.lexsort((-world.popularity, pair))
    first = np.searchsorted(pair[order], pair[order])
    place = np.empty_like(pair)
    place[order] = np.arange(len(pair)) - first  # of an item among those of its category and brand
    cell = np.arange(DEPARTMENTS)[:, None] * (cells // DEPARTMENTS) + pair
    room = categories // cells + (cell < categories % cells)
    category = np.where(place < room - 1, (place + 1) * cells, 0) + cell
    numbers = stream(seed, "taobao categories").permutation(5_000_000)  # as the vendor's: anywhere in some millions
    written: Ints = 1 + numbers[category]
    return written
