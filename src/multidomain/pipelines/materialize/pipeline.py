"""feature views, as registered -> online store, and a report of what was loaded."""

from kedro.pipeline import Pipeline, node

from .nodes import load_online_store


def create_pipeline() -> Pipeline:
    """Run after ``features``, and again as time goes on."""
    return Pipeline(
        [
            node(
                load_online_store,
                ["variant", "feature_repository", "params:materialize", "params:window"],
                "materialized",
                name="load_online_store",
            )
        ],
        tags="materialize",
    )
