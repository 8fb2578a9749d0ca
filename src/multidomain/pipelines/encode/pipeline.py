"""training frame -> encoder and tensors."""

from kedro.pipeline import Pipeline, node

from .nodes import encode, fit_encoder


def create_pipeline() -> Pipeline:
    """Fit on the training split, encode every split."""
    return Pipeline(
        [
            node(fit_encoder, ["variant", "training_frame", "domain_table"], "encoder", name="fit_encoder"),
            node(encode, ["variant", "encoder", "training_frame", "params:window"], "encoded", name="encode"),
        ],
        tags="encode",
    )
