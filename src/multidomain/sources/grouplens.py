"""MovieLens as GroupLens hands it out: 1M in ``.dat`` files, 20M, 25M and 32M in ``.csv`` files.

======================  =================================================  =============================================
file                    1M: Latin-1, columns divided by ``::``, no header  20M, 25M, 32M: UTF-8, titles in quotes
======================  =================================================  =============================================
``files.ratings``       UserID, MovieID, Rating (1 to 5), Timestamp        userId, movieId, rating (0.5 to 5), timestamp
``files.movies``        MovieID, Title, Genres                             movieId, title, genres
``files.users``         UserID, Gender, Age, Occupation, Zip-code          there is none
======================  =================================================  =============================================

Genres are divided by ``|``, in the order of the alphabet; ``(no genres listed)`` is a missing value. A title ends with
its year. ``tags.csv``, ``links.csv`` and ``genome-*.csv`` are not read.

A rating of 4 stars and more is a positive label, as in the papers that take "above 3" of whole stars: of half-stars,
3.5 is nearer to the middle than to praise.

An impression's number is the number of its line.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import SchemaError
from ..layout import IMPRESSION
from ..schema import Schema
from . import text
from .text import LINE, Field, Form

if TYPE_CHECKING:
    import ibis.expr.types as ir
    import pyarrow as pa

POSITIVE_FROM = 4
NO_GENRES = "(no genres listed)"
YEAR = r"\(((?:18|19|20)\d\d)[-–]?\s*(?:(?:18|19|20)\d\d)?\s*\)\s*$"  # also "(2006–2007)" and "(2009– )"
END_OF_TIME = 4_102_444_800  # 2100, in seconds since 1970

_NAMES = {"user_id": "userId", "item_id": "movieId"}  # ours, and those of the csv files
_WHOLE = ("1", "2", "3", "4", "5")
_HALVES = ("0.5", "1.0", "1.5", "2.0", "2.5", "3.0", "3.5", "4.0", "4.5", "5.0")


@dataclass(frozen=True)
class Seconds:
    """Reads ``timestamp``, seconds since 1970, as a time; what is none is set apart."""

    def __call__(self, rows: pa.Table) -> tuple[pa.Table, pa.Array]:
        """The rows with their times, and per row what is wrong with it."""
        import pyarrow as pa
        import pyarrow.compute as pc

        at = rows.column_names.index("timestamp")
        seconds = rows["timestamp"].combine_chunks()
        sound = pc.and_(pc.greater_equal(seconds, 0), pc.less(seconds, END_OF_TIME))
        wrong = pa.nulls(len(rows), pa.string())
        if not pc.all(sound).as_py():
            shown = seconds.cast(pa.string())
            said = pc.binary_join_element_wise("timestamp '", shown, "' is not in seconds since 1970", "")
            wrong, seconds = pc.if_else(sound, None, said), pc.if_else(sound, seconds, None)
        times = seconds.cast(pa.timestamp("s")).cast(pa.timestamp("us"))
        return rows.set_column(at, "timestamp", times), wrong


def _number(allowed: tuple[str, ...] = ()) -> Field:
    return Field(type="int64", allowed=allowed)


def _dat(columns: Mapping[str, Field], **more: object) -> Form:
    return Form(columns=columns, delimiter="::", header=False, encoding="latin-1", **more)  # type: ignore[arg-type]


DAT: Mapping[str, Form] = {
    "ratings": _dat(
        {"user_id": _number(), "item_id": _number(), "rating": _number(_WHOLE), "timestamp": _number()},
        refine=Seconds(),
    ),
    "movies": _dat({"item_id": _number(), "title": Field(), "genres": Field()}, key="item_id"),
    "users": _dat(
        {
            "user_id": _number(),
            "gender": Field(allowed=("F", "M")),
            "age": _number(),
            "occupation": _number(),
            "zip_code": Field(),
        },
        key="user_id",
    ),
}
CSV: Mapping[str, Form] = {
    "ratings": Form(
        columns={
            "userId": _number(),
            "movieId": _number(),
            "rating": Field(type="float64", allowed=_HALVES),
            "timestamp": _number(),
        },
        refine=Seconds(),
    ),
    "movies": Form(columns={"movieId": _number(), "title": Field(), "genres": Field()}, quotes=True, key="movieId"),
}


def read(schema: Schema, files: Mapping[str, Path], work: Path) -> dict[str, ir.Table]:
    """Impressions (user, item, time, rating, label), users, items (title, genre, genres, year), and what was set apart.

    ``genre`` is the first of ``genres``. Users have gender, age, occupation and zip code in 1M, nothing but their
    number elsewhere. A film or user whose number was on an earlier line is set apart.

    Raises:
        SchemaError: the schema does not name the files that these formats have.
        DataError: a file cannot be read, its header lacks a column, or none of its lines is a row.
    """
    forms = _forms(schema, files)
    parsed = {name: text.parse(files[name], form, work) for name, form in forms.items()}
    tables = {name: _named(one.table()) for name, one in parsed.items()}
    ratings = tables["ratings"]
    users = tables.get("users", ratings.select("user_id").distinct().order_by("user_id"))
    return {
        "impressions": _impressions(ratings),
        "users": users,
        "items": _items(tables["movies"]),
        **text.together(list(parsed.values())),
    }


def _forms(schema: Schema, files: Mapping[str, Path]) -> dict[str, Form]:
    """How each file is written, by the ending of the ratings."""
    forms = {".dat": DAT, ".csv": CSV}.get(files.get("ratings", Path()).suffix)
    if forms is None or set(files) != set(forms):
        raise SchemaError(
            f"{schema.path}: files: source grouplens reads ratings, movies and users of MovieLens-1M, ending in .dat; "
            f"or ratings and movies of the larger ones, ending in .csv. Found: {', '.join(sorted(files))}."
        )
    return dict(forms)


def _named(table: ir.Table) -> ir.Table:
    """The csv files' columns under the names that those of 1M have."""
    return table.rename({ours: theirs for ours, theirs in _NAMES.items() if theirs in table.columns})


def _impressions(ratings: ir.Table) -> ir.Table:
    label = (ratings.rating >= POSITIVE_FROM).cast("int8")
    return ratings.mutate(label=label).rename({IMPRESSION: LINE})


def _items(movies: ir.Table) -> ir.Table:
    import ibis

    year = movies.title.re_extract(YEAR, 1).nullif("").cast("int64")
    genres = movies.genres.nullif(NO_GENRES).split("|").map(lambda genre: genre.strip())
    genres = genres.filter(lambda genre: genre != "")
    table = movies.mutate(release_year=year, genres=ibis.ifelse(genres.length() > 0, genres, None))
    return table.mutate(genre=table.genres[0])
