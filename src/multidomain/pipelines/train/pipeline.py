"""encoded variant -> trained model. One template, one instance per architecture."""

from functools import partial, update_wrapper

from kedro.pipeline import Pipeline, node

from .nodes import train


def create_pipeline(architecture: str) -> Pipeline:
    """Train ``architecture``; the caller puts the pipeline in the namespace of that name."""
    function = update_wrapper(partial(train, architecture=architecture), train)
    inputs = {
        "encoded": "encoded",
        "checkpoints": "checkpoints",
        "model": "params:model",
        "training": "params:training",
        "seed": "params:seed",
        "device": "params:device",
        "variant": "variant",
        "encoder": "encoder",
        "warm_start": "params:warm_start",
        "window": "params:window",
    }
    return Pipeline([node(function, inputs, ["model", "history"], name="train")], tags="train")
