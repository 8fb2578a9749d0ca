"""The training frame: every impression beside what was known at its time, joined by Feast in slices.

Slices bound the memory: rows are sorted by user once, then each slice of at most ``SLICE`` rows goes through
``get_historical_features`` and is appended to the file. The join is row by row, so a slice may cut through a user.
"""

from __future__ import annotations

import functools
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import DataError
from ..io import engine_of
from ..io.atomic import working_folder
from ..io.parts import part_batches, rows_of
from ..schema import RESERVED, SPLITS, Variant
from . import repository, request_time
from .views import TIME, View, views

if TYPE_CHECKING:
    import ibis.expr.types as ir
    import pyarrow as pa
    import pyarrow.parquet as pq

SLICE = 250_000  # impressions joined at a time
ROW_GROUP = 65_536
logger = logging.getLogger(__name__)


class TrainingFrame:
    """Call it with a path and it writes the frame there as one Parquet file; ``report`` then says what was missing.

    Columns: those of ``partitioned``, one per feature of the variant, then ``<history>_<field>`` lists (oldest first,
    null for a user without earlier positives) and ``<history>_state``. Rows are sorted by split (train, validation,
    test), then user and time, and no row group holds two splits.
    """

    def __init__(
        self, variant: Variant, partitioned: ir.Table, impressions: ir.Table, *, slice_rows: int = SLICE
    ) -> None:
        self.variant, self.slice_rows = variant, slice_rows
        self.report: dict[str, Any] = {}
        self._partitioned, self._impressions = partitioned, impressions
        self._views = views(variant)

    def __call__(self, path: Path) -> dict[str, Any]:
        """Write the frame to ``path``; return ``report``: rows, rows per split, rows without a feature row per view.

        Raises:
            DataError: a context column is missing, an impression would be lost or doubled, or the variant is not
                registered with Feast.
        """
        from ..parallel import in_order
        from ..progress import progress

        missing = dict.fromkeys((view.name for view in self._views), 0)
        asked = self._views or self.variant.request_features
        store, service = repository.service(self.variant) if asked else (None, None)
        with working_folder(path.with_name("frame")) as folder:
            rows = self._sorted_rows(folder / "rows.parquet")
            with (
                _SplitWriter(path, folder) as writer,
                progress(total=rows, what="join features") as bar,
            ):
                join = functools.partial(self._join, store, service)
                parts = _slices(folder / "rows.parquet", self.slice_rows)
                for joined in in_order(join, parts, workers=1):  # one slice is joined while another is written
                    schema = self._schema(joined)
                    writer.write(joined.select(schema.names).cast(schema))
                    for view in self._views:
                        missing[view.name] += _without(joined, view)
                    bar.update(joined.num_rows)
                self.report = {"rows": rows, "splits": dict(writer.rows), "missing": missing}
                if sum(writer.rows.values()) != rows:
                    raise DataError(f"training_frame: {rows} rows went in, {sum(writer.rows.values())} came out.")
                writer.finish({"multidomain.features": json.dumps(self.report)})
        self._log()
        return self.report

    def _sorted_rows(self, path: Path) -> int:
        """Partitioned rows with their context features, sorted, on disk; their number."""
        con, rows, context = engine_of(self._partitioned), self._partitioned, self._context()
        if context is not None:
            rows = rows.join(context, "impression_id", how="left")
        unknown = rows.filter(~rows.split.isin(SPLITS)).count()
        ordered = rows.order_by("user", "timestamp", "impression_id")
        con.to_parquet(ordered, str(path), compression="zstd", row_group_size=ROW_GROUP)
        before = con.execute(self._partitioned.count())
        after = rows_of(path)
        if before != after:
            raise DataError(
                f"partitioned has {before} rows, {after} after context features were joined by impression_id: "
                "the impression ids of valid_impressions are not unique."
            )
        if strange := con.execute(unknown):
            raise DataError(f"partitioned: {strange} rows have a split that is none of {', '.join(SPLITS)}.")
        return after

    def _context(self) -> ir.Table | None:
        features = [f for f in self.variant.base_features if f.owner == "context"]
        if not features:
            return None
        table = self._impressions
        for feature in features:
            if feature.column not in table.columns:
                raise DataError(
                    f"valid_impressions has no column '{feature.column}', needed by context feature '{feature.name}' "
                    f"of {self.variant.schema.path}. It has: {', '.join(table.columns)}."
                )
        return table.select("impression_id", **{f.name: table[f.column] for f in features})

    def _join(self, store: Any, service: Any, part: pa.Table) -> pa.Table:
        """One slice with the features of all views, in its own order."""
        import pyarrow as pa
        import pyarrow.compute as pc

        if store is None:
            return part
        keys = dict.fromkeys(key for view in self._views for key in view.keys)
        asked = part.select(["impression_id", *keys, "timestamp"]).rename_columns(["impression_id", *keys, TIME])
        made = [feature.name for feature in self.variant.request_features]
        if made:
            asked = asked.append_column(request_time.TIME, part["timestamp"].cast(pa.int64()))
        found = store.get_historical_features(features=service, entity_df=asked).to_arrow()
        if not found["impression_id"].equals(asked["impression_id"]):  # a store need not keep the order
            place = pc.index_in(asked["impression_id"].combine_chunks(), found["impression_id"].combine_chunks())
            if found.num_rows != asked.num_rows or place.null_count or len(pc.unique(place)) != len(place):
                raise DataError(
                    f"Feast returned {found.num_rows} rows for {asked.num_rows} impressions, or ids that were not "
                    "asked for: the offline store drops or repeats rows. Use that of feature_repo/feature_store.yaml."
                )
            found = found.take(place)
        for view in self._views:
            for column in view.columns:
                part = part.append_column(column.name, found[column.name])
        for name in made:
            part = part.append_column(name, found[name].cast(pa.int64()))
        for history in self.variant.histories:  # the state numbers a user's lists; no row means none so far
            name = history.feature("state")
            at = part.column_names.index(name)
            part = part.set_column(at, name, pc.fill_null(part[name].cast(pa.int64()), 0))
        return part

    def _schema(self, table: pa.Table) -> pa.Schema:
        """The frame's columns in order, each typed from the plan so that all slices agree."""
        import pyarrow as pa

        single = {"string": pa.string(), "int": pa.int64(), "float": pa.float64()}
        planned = {
            c.name: pa.list_(single[c.type]) if c.list else single[c.type] for v in self._views for c in v.columns
        }
        lists = [c.name for v in self._views if v.kind == "history" for c in v.columns]
        base = [name for name in table.column_names if name in RESERVED]
        names = [*base, *(f.name for f in self.variant.features), *lists]
        return pa.schema([pa.field(n, planned[n]) if n in planned else table.schema.field(n) for n in names])

    def _log(self) -> None:
        rows = self.report["rows"]
        for name, count in self.report["missing"].items():
            logger.info(
                "%s: %d of %d impressions had no feature row (%.2f %%)", name, count, rows, 100 * count / max(rows, 1)
            )


def _slices(path: Path, rows: int) -> Iterator[pa.Table]:
    """Consecutive rows, at most ``rows`` at a time."""
    import pyarrow as pa

    for batch in part_batches(path, rows):
        yield pa.Table.from_batches([batch])


class _SplitWriter:
    """One Parquet file sorted by split from slices that hold all splits, each row group of one split alone.

    Training rows are written as they come; those of the other splits wait in Arrow files on disk, so that every slice
    is joined once and nothing is held in memory.
    """

    def __init__(self, path: Path, folder: Path) -> None:
        self.rows = dict.fromkeys(SPLITS, 0)
        self._path, self._folder = path, folder
        self._parquet: pq.ParquetWriter | None = None
        self._waiting: dict[str, pa.ipc.RecordBatchFileWriter] = {}

    def __enter__(self) -> _SplitWriter:
        return self

    def __exit__(self, *_: object) -> None:
        for file in (*self._waiting.values(), self._parquet):
            if file is not None:
                file.close()

    def write(self, table: pa.Table) -> None:
        import pyarrow as pa
        import pyarrow.compute as pc

        for split in SPLITS:
            part = table.filter(pc.equal(table["split"], split))
            self.rows[split] += part.num_rows
            if split == SPLITS[0]:
                self._append(part)
            elif part.num_rows:
                if split not in self._waiting:
                    self._waiting[split] = pa.ipc.new_file(self._folder / f"{split}.arrow", table.schema)
                self._waiting[split].write_table(part)

    def finish(self, metadata: dict[str, str]) -> None:
        """Append what waited, and what is to be known of the whole file."""
        import pyarrow as pa

        for split, file in self._waiting.items():
            file.close()
            with pa.OSFile(str(self._folder / f"{split}.arrow")) as source:  # the pages of a map would count as memory
                for group in _groups(pa.ipc.open_file(source), ROW_GROUP):
                    self._append(group)
        if self._parquet is None:
            raise DataError("training_frame: there are no impressions to write.")
        self._parquet.add_key_value_metadata(metadata)

    def _append(self, table: pa.Table) -> None:
        import pyarrow.parquet as pq

        if self._parquet is None:
            self._parquet = pq.ParquetWriter(self._path, table.schema, compression="zstd", compression_level=1)
        self._parquet.write_table(table, row_group_size=ROW_GROUP)


def _groups(file: pa.ipc.RecordBatchFileReader, rows: int) -> Iterator[pa.Table]:
    """All rows of an Arrow file, ``rows`` at a time."""
    import pyarrow as pa

    waiting = file.schema.empty_table()
    for number in range(file.num_record_batches):
        waiting = pa.concat_tables([waiting, pa.Table.from_batches([file.get_batch(number)])])
        while waiting.num_rows >= rows:
            yield waiting.slice(0, rows)
            waiting = waiting.slice(rows)
    if waiting.num_rows:
        yield waiting


def _without(table: pa.Table, view: View) -> int:
    """Rows for which the view had nothing: all its features are null."""
    import pyarrow.compute as pc

    names = [c.name for c in view.columns if not c.name.endswith("_state")] or [c.name for c in view.columns]
    empty = functools.reduce(pc.and_, (pc.is_null(table[name]) for name in names))
    return int(pc.sum(empty).as_py() or 0)
