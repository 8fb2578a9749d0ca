"""online store, view tables, training frame -> ages and drift, as a page and in MLflow, and an error if it is stale."""

from kedro.pipeline import Pipeline, node

from .nodes import draw_freshness, judge_freshness, measure_freshness, record_freshness


def create_pipeline() -> Pipeline:
    """``--pipeline=check_freshness``: everything is written and recorded before it is judged."""
    return Pipeline(
        [
            node(
                measure_freshness,
                ["variant", "feature_views", "training_frame", "params:check_freshness"],
                "freshness",
                name="measure_freshness",
            ),
            node(
                draw_freshness,
                ["variant", "freshness", "params:check_freshness"],
                "freshness_page",
                name="draw_freshness",
            ),
            node(
                record_freshness, ["variant", "freshness", "freshness_page"], "freshness_run", name="record_freshness"
            ),
            node(
                judge_freshness,
                ["variant", "freshness", "freshness_run", "params:check_freshness"],
                None,
                name="judge_freshness",
            ),
        ],
        tags="check_freshness",
    )
