"""trained model + encoded test split -> predictions, metrics, account, plots, insights. One template for all."""

from kedro.pipeline import Pipeline, node

from .account import account, cost, reference
from .nodes import calibrate, draw, evaluate, explain, predict


def create_pipeline() -> Pipeline:
    """The caller puts the pipeline in the namespace of an architecture."""
    fitted = ["encoded", "model", "params:calibration", "params:device"]
    scored = ["variant", "encoded", "model", "params:device", "calibration"]
    compared = ["variant", "training_frame", "predictions", "model", "params:reference"]
    told = ["training_frame", "predictions", "reference", "params:session_gap_minutes"]
    priced = ["encoded", "model", "history", "params:device"]
    drawn = ["variant", "model", "predictions", "metrics", "history", "segments", "account", "cost"]
    return Pipeline(
        [
            node(calibrate, fitted, "calibration", name="calibrate"),
            node(predict, scored, "predictions", name="predict"),
            node(evaluate, ["predictions", "encoded"], "metrics", name="evaluate"),
            node(reference, compared, "reference", name="reference"),
            node(account, told, ["segments", "account"], name="account"),
            node(cost, priced, "cost", name="cost"),
            node(draw, drawn, "plots", name="draw"),
            node(explain, ["encoded", "model", "params:seed", "params:device"], "insights", name="explain"),
        ],
        tags="evaluate",
    )
