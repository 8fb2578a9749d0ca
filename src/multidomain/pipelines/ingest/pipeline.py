"""Raw files -> three ``ingested_…`` tables, the lines that are no rows, and a report."""

from __future__ import annotations

from kedro.pipeline import Pipeline, node

from .nodes import locate_files, read_log


def create_pipeline() -> Pipeline:
    """Wire the stage."""
    return Pipeline(
        [
            node(locate_files, ["schema", "params:raw_folder"], "raw_files", name="locate_files"),
            node(
                read_log,
                ["schema", "raw_files", "params:sample_share", "parsed_files", "params:window"],
                [
                    "ingested_impressions",
                    "ingested_users",
                    "ingested_items",
                    "rejected_lines",
                    "ingest_report",
                ],
                name="read_log",
            ),
        ],
        tags="ingest",
    )
