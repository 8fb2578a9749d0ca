"""trained, evaluated model -> MLflow run and registered model. One template, one instance per architecture."""

from functools import partial, update_wrapper

from kedro.pipeline import Pipeline, node

from .nodes import package


def create_pipeline(architecture: str) -> Pipeline:
    """Package ``architecture``; the caller puts the pipeline in the namespace of that name."""
    function = update_wrapper(partial(package, architecture=architecture), package)
    given = ("variant", "encoder", "encoded", "training_frame", "model", "history")
    names = (*given, "predictions", "metrics", "plots", "insights", "reference", "calibration", "account", "cost")
    parameters = {
        "configuration": "params:model",
        "training": "params:training",
        "seed": "params:seed",
        "gate": "params:gate",
        "options": "params:package",
        "warm_start": "params:warm_start",
        "window": "params:window",
    }
    return Pipeline(
        [node(function, {name: name for name in names} | parameters, "package", name="package")], tags="package"
    )
