"""training frame + registered model -> what differs between offline and online, and an error if that is too much."""

from kedro.pipeline import Pipeline, node

from .nodes import check_leaks, check_views, judge_parity, measure_parity


def create_pipeline() -> Pipeline:
    """``--pipeline=check_parity --params=architecture=star``: what costs little is checked first.

    The report of what differs is written before it is judged.
    """
    leaks = {
        "variant": "variant",
        "partitioned": "partitioned",
        "items": "valid_items",
        "feature_views": "feature_views",
        "training_frame": "training_frame",
        "registered": "registered_views",
        "options": "params:check_parity",
    }
    inputs = {
        "variant": "variant",
        "training_frame": "training_frame",
        "architecture": "params:architecture",
        "version": "params:version",
        "options": "params:check_parity",
        "registered": "registered_views",
        "leaks": "leaks",
    }
    return Pipeline(
        [
            node(check_views, ["variant", "params:check_parity"], "registered_views", name="check_views"),
            node(check_leaks, leaks, "leaks", name="check_leaks"),
            node(measure_parity, inputs, "parity", name="measure_parity"),
            node(judge_parity, ["variant", "parity", "params:check_parity"], None, name="judge_parity"),
        ],
        tags="check_parity",
    )
