"""file of rows + registered model -> scores."""

from kedro.pipeline import Pipeline, node

from .nodes import score_file


def create_pipeline() -> Pipeline:
    """``--pipeline=predict --params=input=FILE,architecture=star`` , champion or ``version=N``."""
    inputs = {"variant": "variant", "file": "params:input", "architecture": "params:architecture"}
    return Pipeline(
        [node(score_file, inputs | {"version": "params:version"}, "scores", name="score_file")], tags="predict"
    )
