"""The schema -> raw files on disk."""

from kedro.pipeline import Pipeline, node

from .nodes import fetch_files


def create_pipeline() -> Pipeline:
    """``--pipeline=fetch --params=dataset=NAME``"""
    return Pipeline([node(fetch_files, ["schema", "params:raw_folder"], None, name="fetch_files")], tags="fetch")
