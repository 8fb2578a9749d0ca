"""trained model + encoded test split -> predictions, metrics, plots, insights. One template for all architectures."""

from kedro.pipeline import Pipeline, node

from .nodes import draw, evaluate, explain, predict


def create_pipeline() -> Pipeline:
    """The caller puts the pipeline in the namespace of an architecture."""
    scored = ["variant", "encoded", "model", "params:device"]
    drawn = ["variant", "model", "predictions", "metrics", "history"]
    return Pipeline(
        [
            node(predict, scored, "predictions", name="predict"),
            node(evaluate, ["predictions", "encoded"], "metrics", name="evaluate"),
            node(draw, drawn, "plots", name="draw"),
            node(explain, ["encoded", "model", "params:seed", "params:device"], "insights", name="explain"),
        ],
        tags="evaluate",
    )
