"""tensors -> drift between splits and domains, as tables and a page."""

from kedro.pipeline import Pipeline, node

from .nodes import report_drift


def create_pipeline() -> Pipeline:
    """Measured once per variant, on what models read."""
    return Pipeline([node(report_drift, ["variant", "encoded"], "drift", name="report_drift")], tags="drift")
