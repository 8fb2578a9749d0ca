"""``ingested_*`` -> ``valid_*``, ``quarantine``, ``validation_report``, ``data_docs``."""

from __future__ import annotations

from kedro.pipeline import Pipeline, node

from .nodes import validate


def create_pipeline() -> Pipeline:
    """Wire the stage."""
    return Pipeline(
        [
            node(
                validate,
                [
                    "schema",
                    "ingested_impressions",
                    "ingested_users",
                    "ingested_items",
                    "rejected_lines",
                    "ingest_report",
                ],
                [
                    "valid_impressions",
                    "valid_users",
                    "valid_items",
                    "quarantine",
                    "validation_report",
                    "data_docs",
                ],
                name="validate",
            )
        ],
        tags="validate",
    )
