"""MovieLens' files as GroupLens writes them, of any size: ``.dat`` for 1M, ``.csv`` for 20M, 25M and 32M.

A click of the simulated log becomes 4 stars or more, anything else less. What is known of users and films is the
simulation's features under MovieLens' names, so that what attracts can still be learnt from them. Unlike in the
originals a user may rate a film twice, and each part of the log starts again with the first user.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from multidomain.schema import Simulation
from multidomain.simulation.generate import Log
from multidomain.simulation.world import World

from .lines import Bad, LineFile, codes, parts

LAYOUTS = ("1m", "20m", "25m", "32m")
_SIZES = {"1m": (1_000_209, 6_040, 3_883), "20m": (20_000_263, 138_493, 27_278)}  # ratings, users, films
_SIZES |= {"25m": (25_000_095, 162_541, 62_423), "32m": (32_000_204, 200_948, 87_585)}
_EARLIER = {"1m": 747_000_000}  # seconds before the simulation's time; half as long for the others
_GENRES = (
    "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama", "Fantasy",
    "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western",
)  # fmt: skip
STARS = ("0.5", "1.0", "1.5", "2.0", "2.5", "3.0", "3.5", "4.0", "4.5", "5.0")
_AGES = (1, 18, 25, 35, 45, 50, 56, 56)
_OCCUPATIONS = (4, 0, 7, 1, 17, 12, 20, 2)
_ZIPS = (
    "48067", "70072", "55117", "02460", "98107-2117", "10025", "60614", "94110", "55455", "11413", "61614", "06810",
)  # fmt: skip
_DECADES = (1930, 1960, 1980, 1990, 2000)
_TITLES = ("Misérables, Les", "Night Train", '"Quoted" One, The', "Été", "Plain Tale")  # commas, quotes, accents
Ints = npt.NDArray[np.int64]


def write(
    folder: Path,
    *,
    rows: int,
    seed: int = 2021,
    bad: Mapping[str, Sequence[Bad]] = MappingProxyType({}),
    layout: str = "1m",
    users: int | None = None,
    items: int | None = None,
) -> dict[str, LineFile]:
    """The files of one layout; users and films are as many to a rating as in the original unless given."""
    total, people, films = _SIZES[layout]
    simulation = Simulation(
        preset="interest",
        rows=rows,
        users=users or max(20, rows * people // total),
        items=items or max(20, min(films, rows * 10 * films // total)),
        days=900,
        seed=seed,
    )
    dat = layout == "1m"
    names = ("ratings.dat", "movies.dat", "users.dat") if dat else ("ratings.csv", "movies.csv")
    headers = (None, None, None) if dat else (b"userId,movieId,rating,timestamp", b"movieId,title,genres")
    with contextlib.ExitStack() as stack:
        files = {
            name: stack.enter_context(LineFile(folder / name, header=header, bad=bad.get(name, ())))
            for name, header in zip(names, headers, strict=True)
        }
        for number, log in enumerate(parts(simulation)):
            files[names[0]].write(_ratings(log, layout), "::" if dat else ",")
            if number == 0:
                files[names[1]].write(_movies(log.world, layout), "::" if dat else ",")
            if number == 0 and dat:
                files[names[2]].write(_users(log.world), "::")
    return files


def _ratings(log: Log, layout: str) -> list[pa.Array]:
    """User, film, stars and the second."""
    rows = log.rows
    luck = (rows["user"] * 7 + rows["item"] * 13 + rows.position) % 10
    if layout == "1m":
        stars = np.where(log.clicked, 4 + luck // 6, 1 + np.minimum(luck // 3, 2))
        shown = codes(stars)
    else:
        halves = np.where(log.clicked, 8 + luck // 4, 1 + luck * 7 // 10)
        shown = pa.array(STARS).take(pa.array(halves - 1))
    seconds = rows.time.astype("datetime64[s]").astype(np.int64)
    since = _EARLIER.get(layout, _EARLIER["1m"] // 2)
    return [codes(rows["user"] + 1), codes(_film(rows["item"], layout)), shown, codes(seconds - since)]


def _film(items: Ints, layout: str) -> Ints:
    """The number of a film: with gaps in the larger layouts."""
    return items + 1 if layout == "1m" else items * 3 + 1


def _movies(world: World, layout: str) -> list[pa.Array]:
    films = np.arange(len(world.popularity))
    first, second = world.item["category"], world.item["brand"] % 8 + 10  # in the order of the alphabet
    named = pa.array([genre if layout == "1m" else genre.removesuffix("'s") for genre in _GENRES])
    genres = pc.binary_join_element_wise(named.take(pa.array(first)), named.take(pa.array(second)), "|")
    genres = pc.if_else(pa.array(films % 3 == 0), named.take(pa.array(first)), genres)
    years = codes(np.array(_DECADES)[world.item["price"]] + films % 3)
    title = pc.binary_join_element_wise(pa.array(_TITLES).take(pa.array(films % len(_TITLES))), codes(films), " ")
    dated = pc.binary_join_element_wise(title, " (", years, ")", "")
    if layout == "1m":
        latin = pa.array([text.encode("latin-1") for text in dated.to_pylist()], pa.binary())
        return [codes(films + 1), latin, genres]
    title = pc.if_else(pa.array(films % 20 == 19), title, dated)
    genres = pc.if_else(pa.array(films % 25 == 24), "(no genres listed)", genres)
    return [codes(_film(films, layout)), pa.array([_quoted(text) for text in title.to_pylist()]), genres]


def _quoted(text: str) -> str:
    """In quotes where it holds a comma or quotes, which are doubled."""
    doubled = text.replace('"', '""')
    return f'"{doubled}"' if "," in text or '"' in text else text


def _users(world: World) -> list[pa.Array]:
    """Number, gender, age, occupation and zip code."""
    people, profile = np.arange(len(world.activity)), world.profile
    gender = pa.array(["F", "M", "M", "M"]).take(pa.array(profile["device"]))
    age, occupation = np.array(_AGES)[profile["age"]], np.array(_OCCUPATIONS)[profile["occupation"]]
    return [codes(people + 1), gender, codes(age), codes(occupation), pa.array(_ZIPS).take(pa.array(profile["city"]))]
