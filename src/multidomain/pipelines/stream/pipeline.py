"""encoder (or a package) + a stream of impressions -> trained model, prequential metrics, versions."""

from functools import partial, update_wrapper

from kedro.pipeline import Pipeline, node

from .nodes import draw, stream


def create_pipeline(architecture: str) -> Pipeline:
    """Follow the stream with ``architecture``; the caller puts the pipeline in the namespace of that name."""
    followed = update_wrapper(partial(stream, architecture=architecture), stream)
    inputs = {
        "variant": "variant",
        "encoder": "encoder",
        "kept": "stream_kept",
        "model": "params:model",
        "training": "params:training",
        "stream": "params:stream",
        "seed": "params:seed",
        "device": "params:device",
        "warm_start": "params:warm_start",
        "gate": "params:gate",
        "options": "params:package",
    }
    return Pipeline(
        [
            node(followed, inputs, ["streamed", "prequential", "stream_report"], name="stream"),
            node(draw, "prequential", "stream_plots", name="draw_stream"),
        ],
        tags="stream",
    )
