"""encoded variant + search space -> study, its best configuration, its MLflow runs. One instance per architecture."""

from functools import partial, update_wrapper

from kedro.pipeline import Pipeline, node

from .nodes import track, tune


def create_pipeline(architecture: str) -> Pipeline:
    """Tune ``architecture``; the caller puts the pipeline in the namespace of that name."""
    searched = update_wrapper(partial(tune, architecture=architecture), tune)
    recorded = update_wrapper(partial(track, architecture=architecture), track)
    inputs = {
        "encoded": "encoded",
        "studies": "studies",
        "model": "params:model",
        "training": "params:training",
        "tune": "params:tune",
        "seed": "params:seed",
        "device": "params:device",
    }
    return Pipeline(
        [
            node(searched, inputs, ["trials", "tuned"], name="tune"),
            node(recorded, {"variant": "variant", "trials": "trials", "tuned": "tuned"}, "tuning_runs", name="track"),
        ],
        tags="tune",
    )
