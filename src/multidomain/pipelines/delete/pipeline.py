"""a variant -> its files are gone. Nothing of another variant, and no raw or validated table, is touched."""

from kedro.pipeline import Pipeline, node

from .nodes import delete


def create_pipeline() -> Pipeline:
    """Lists first; ``--params=confirm=yes`` deletes."""
    return Pipeline(
        [
            node(
                delete,
                ["variant", "params:confirm", "params:registered_models", "params:output_store"],
                None,
                name="delete_variant",
            )
        ],
        tags="delete",
    )
