"""The file MLflow runs to load a packaged model. Everything it needs lies in the package, beside it."""

import importlib
import sys
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd


class PackagedModel(mlflow.pyfunc.PythonModel):  # type: ignore
    """Scores rows with the code, encoder and weights of this package.

    ``load_model(…, model_config={"engine": "onnx"})`` scores them with its ONNX file instead, if it has one.
    """

    def load_context(self, context: Any) -> None:
        """Read encoder and weights; ``package`` is the name this version's own code goes by."""
        own, encoder = context.model_config["package"], Path(context.artifacts["encoder"])
        _forget_if_gone(own)
        if context.model_config.get("engine", "torch") == "onnx":
            if "onnx" not in context.artifacts:
                raise ValueError("This package has no ONNX file: it was made with package.onnx false.")
            scorer = importlib.import_module(f"{own}.packaging.onnx_scorer").OnnxScorer
            self.scorer = scorer.load(encoder, Path(context.artifacts["onnx"]))
        else:
            scorer = importlib.import_module(f"{own}.packaging.scorer").Scorer
            self.scorer = scorer.load(encoder, Path(context.artifacts["model"]))

    def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> pd.DataFrame:  # noqa: ARG002
        """A frame with the column ``score``."""
        return self.scorer.predict(model_input)


def _forget_if_gone(package: str) -> None:
    """Code that was loaded from a folder that is no more, such as a download, is loaded from the new place."""
    loaded = sys.modules.get(package)
    if loaded is not None and not any(Path(place).is_dir() for place in loaded.__path__):
        for name in [name for name in sys.modules if name == package or name.startswith(f"{package}.")]:
            del sys.modules[name]


mlflow.models.set_model(PackagedModel())
