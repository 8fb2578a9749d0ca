"""training frame + registered model -> what differs between offline and online, and an error if that is too much."""

from kedro.pipeline import Pipeline, node

from .nodes import judge_parity, measure_parity


def create_pipeline() -> Pipeline:
    """``--pipeline=check_parity --params=architecture=star``: the report is written before it is judged."""
    inputs = {
        "variant": "variant",
        "training_frame": "training_frame",
        "architecture": "params:architecture",
        "version": "params:version",
        "options": "params:check_parity",
    }
    return Pipeline(
        [
            node(measure_parity, inputs, "parity", name="measure_parity"),
            node(judge_parity, ["variant", "parity", "params:check_parity"], None, name="judge_parity"),
        ],
        tags="check_parity",
    )
