"""Ali-CCP as Tianchi hands it out: 85 million impressions of Taobao's recommender, with clicks and conversions.

``sample_skeleton_{train,test}.csv``: sample id, click, conversion, common-feature index, number of features, features.
``common_features_{train,test}.csv``: index, number of features, features that many samples share. No headers. A feature
is field, id and value, written ``205\\x02 4312 \\x03 1.0`` without the blanks; features are divided by ``\\x01``.

Columns are called by the number of their field (``205`` is the item, ``101`` the user, ``301`` the position). What is
decided here:

- The "user" is the common-feature index: what was known of a person at one time. Train and test have theirs apart, so
  an index is led by ``train-`` or ``test-``. Field 101, the person, groups rows for GAUC.
- The number of an impression is 2 · sample id, plus 1 in the test file, whose samples are numbered from 1 again.
- ``split``: the test file is the test split; a tenth of the training file, by a hash of the number, is validation.
- A field with many ids in a row is a sequence; the ``length`` of largest value are kept, in order of it. Values are
  not inputs otherwise. Fields the schema does not name are left out, as columns would be.
- An item's category (206), shop (207), intentions (210) and brand (216) are those it has in most of its rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..draw import digest
from ..errors import SchemaError
from ..layout import IMPRESSION, key, layout
from ..schema import Schema
from .owners import usual_values
from .text import Field, Form, Parsed, parse, together

if TYPE_CHECKING:
    import ibis.expr.types as ir
    import pyarrow as pa

FILES = ("sample_train", "common_train", "sample_test", "common_test")
INDEX = "common_feature_index"
COMMON = ("101", "121", "122", "124", "125", "126", "127", "128", "129", "109_14", "110_14", "127_14", "150_14")
SAMPLE = ("205", "206", "207", "210", "216", "301", "508", "509", "702", "853")
VALIDATION = 0.1  # of the training file
SEED = 2021


def read(schema: Schema, files: Mapping[str, Path], work: Path) -> dict[str, ir.Table]:
    """Impressions with the features of the sample, one "user" per common-feature index, one row per item.

    Raises:
        SchemaError: the schema names other files, or a column that no field of this log has.
    """
    import ibis

    if sorted(files) != sorted(FILES):
        raise SchemaError(f"{schema.path}: files: source ali_ccp reads {', '.join(FILES)}, not {', '.join(files)}.")
    lengths = {feature.column: feature.length for feature in schema.features if feature.kind == "sequence"}
    columns = layout(schema).all()
    wanted = [tuple(name for name in fields if name in columns) for fields in (SAMPLE, COMMON)]
    samples, common = (FeatureList.of(fields, lengths) for fields in wanted)
    parsed = {
        name: parse(files[name], _sample_form(samples) if name.startswith("sample") else _common_form(common), work)
        for name in FILES
    }
    impressions = ibis.union(*(_impressions(parsed[f"sample_{part}"], part) for part in ("train", "test")))
    users = ibis.union(*(_users(parsed[f"common_{part}"], part) for part in ("train", "test")))
    return {
        "impressions": impressions,
        "users": users,
        "items": _items(schema, impressions),
        **together(list(parsed.values())),
    }


def _sample_form(features: FeatureList) -> Form:
    whole, binary = Field(type="int64"), Field(type="int8", allowed=("0", "1"))
    columns = {"sample_id": whole, "click": binary, "conversion": binary, INDEX: Field(), **_LISTED}
    return Form(columns=columns, header=False, refine=features)


def _common_form(features: FeatureList) -> Form:
    return Form(columns={INDEX: Field(), **_LISTED}, header=False, key=INDEX, refine=features)


_LISTED = {"feature_num": Field(type="int64"), "feature_list": Field()}


def _impressions(samples: Parsed, part: str) -> ir.Table:
    import ibis

    table = samples.table()
    number = table.sample_id * 2 + int(part == "test")
    split: Any = ibis.literal("test")
    if part == "train":
        drawn = digest(SEED, table.sample_id).left(8)
        split = ibis.ifelse(drawn < f"{int(VALIDATION * 16**8):08x}", "validation", "train")
    index = ibis.literal(f"{part}-") + table[INDEX]
    return table.mutate(**{IMPRESSION: number, INDEX: index, "split": split}).drop("sample_id", "line")


def _users(common: Parsed, part: str) -> ir.Table:
    import ibis

    table = common.table()
    return table.mutate(**{INDEX: ibis.literal(f"{part}-") + table[INDEX]}).drop("line")


def _items(schema: Schema, impressions: ir.Table) -> ir.Table:
    """One row per item, with the values it has most often."""
    item = key(schema, "items")
    assert item is not None
    return usual_values(impressions, item, list(layout(schema).items), what="items", origin="sample_skeleton")


@dataclass(frozen=True, kw_only=True)
class FeatureList:
    """Reads ``feature_num`` and ``feature_list`` of rows into one column per field.

    Attributes:
        single: fields with one id in a row -> text, null where the row has none.
        many: fields with several -> lists, and how many of them are kept.
    """

    single: tuple[str, ...]
    many: tuple[tuple[str, int], ...]

    @classmethod
    def of(cls, fields: tuple[str, ...], lengths: Mapping[str, int]) -> FeatureList:
        """Those of ``fields`` that have a length are lists."""
        single = tuple(name for name in fields if name not in lengths)
        return cls(single=single, many=tuple((name, lengths[name]) for name in fields if name in lengths))

    def __call__(self, rows: pa.Table) -> tuple[pa.Table, pa.Array]:
        """Rows with the fields in the place of the list, and what is wrong with each."""
        import pyarrow as pa

        tokens = _Tokens(rows["feature_list"], [*self.single, *(name for name, _ in self.many)])
        wrong = np.full(len(rows), None, dtype=object)
        tokens.complain(wrong)
        counted = rows["feature_num"].to_numpy()
        for row in np.flatnonzero((tokens.counts != np.nan_to_num(counted)) & ~tokens.broken).tolist():
            wrong[row] = f"feature_num says {counted[row]:g} features, feature_list has {tokens.counts[row]}"
        rows = rows.drop_columns(["feature_num", "feature_list"])
        for name in self.single:
            column, twice = tokens.one(name)
            for row in twice.tolist():
                wrong[row] = wrong[row] or f"feature_list has field {name} more than once"
            rows = rows.append_column(name, column)
        for name, length in self.many:
            rows = rows.append_column(name, tokens.many(name, length))
        return rows, pa.array(wrong, pa.string())


class _Tokens:
    """The features of some rows: ``field \\x02 id \\x03 value``. Each different one is taken apart once."""

    def __init__(self, lists: pa.ChunkedArray, fields: list[str]) -> None:
        import pyarrow as pa
        import pyarrow.compute as pc

        split = pc.fill_null(pc.split_pattern(lists.combine_chunks(), "\x01"), pa.scalar([], pa.list_(pa.string())))
        self.counts: npt.NDArray[np.int64] = pc.list_value_length(split).to_numpy().astype(np.int64)
        self.row = np.repeat(np.arange(len(split)), self.counts)
        encoded = pc.list_flatten(split).dictionary_encode()
        self.token = encoded.indices.to_numpy()
        self._text = encoded.dictionary
        self.broken = np.zeros(len(split), dtype=bool)  # rows with a feature that is none
        field, rest, whole = _halves(self._text, "\x02")
        self._id, value, whole_too = _halves(rest, "\x03")
        number = pc.match_substring_regex(pc.fill_null(value, ""), r"^-?[0-9.]+(e-?[0-9]+)?$")
        valid = pc.and_(pc.and_(whole, whole_too), pc.and_(number, pc.greater(pc.binary_length(self._id), 0)))
        self._bad = ~_numpy(pc.fill_null(valid, False)).astype(bool)
        self._value = _numpy(pc.if_else(valid, value, "0").cast(pa.float64()))
        self._fields = {name: number for number, name in enumerate(fields)}
        code = _numpy(pc.fill_null(pc.index_in(field, value_set=pa.array(fields, pa.string())), -1))
        self._code = code[self.token] if len(code) else np.zeros(0, np.int64)

    def complain(self, wrong: npt.NDArray[np.object_]) -> None:
        """Say of each row the first of its features that is none."""
        at = np.flatnonzero(self._bad[self.token]) if len(self._bad) else np.zeros(0, np.int64)
        self.broken[self.row[at]] = True
        for place in at[::-1].tolist():
            text = self._text[int(self.token[place])].as_py()[:80]
            wrong[self.row[place]] = f"feature_list holds {text!r}, which is not field\\x02id\\x03value"

    def one(self, name: str) -> tuple[pa.Array, npt.NDArray[np.int64]]:
        """The id of a field in each row, and the rows that have several."""
        import pyarrow as pa

        place = np.flatnonzero(self._code == self._fields[name])
        row = self.row[place]
        taken = np.full(len(self.counts), -1)
        taken[row[::-1]] = self.token[place[::-1]]  # the first counts
        return self._id.take(pa.array(taken, mask=taken < 0)), np.unique(row[1:][row[1:] == row[:-1]])

    def many(self, name: str, length: int) -> pa.Array:
        """The ids of a field in each row, those of largest value first, at most ``length``."""
        import pyarrow as pa

        place = np.flatnonzero(self._code == self._fields[name])
        row, token = self.row[place], self.token[place]
        order = np.lexsort((-self._value[token], row))
        row, token = row[order], token[order]
        counts = np.bincount(row, minlength=len(self.counts))
        rank = np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)
        kept = rank < length
        offsets = np.concatenate([[0], np.cumsum(np.minimum(counts, length))])
        return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), self._id.take(pa.array(token[kept])))


def _halves(text: pa.Array, separator: str) -> tuple[pa.Array, pa.Array, pa.Array]:
    """What stands before the separator, what after it, and whether it is there once."""
    import pyarrow as pa
    import pyarrow.compute as pc

    parts = pc.split_pattern(text, separator)
    whole = pc.fill_null(pc.equal(pc.list_value_length(parts), 2), False)
    parts = pc.if_else(whole, parts, pa.scalar(["", ""], pa.list_(pa.string())))
    return pc.list_element(parts, 0), pc.list_element(parts, 1), whole


def _numpy(array: pa.Array) -> npt.NDArray[Any]:
    return np.asarray(array.to_numpy(zero_copy_only=False))
