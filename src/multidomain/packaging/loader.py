"""The file MLflow runs to load a packaged model. Everything it needs lies in the package, beside it."""

import importlib
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd


class PackagedModel(mlflow.pyfunc.PythonModel):  # type: ignore
    """Scores rows with the code, encoder and weights of this package."""

    def load_context(self, context: Any) -> None:
        """Read encoder and weights; ``package`` is the name this version's own code goes by."""
        scorer = importlib.import_module(f"{context.model_config['package']}.packaging.scorer")
        self.scorer = scorer.Scorer.load(Path(context.artifacts["encoder"]), Path(context.artifacts["model"]))

    def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> pd.DataFrame:  # noqa: ARG002
        """A frame with the column ``score``."""
        return self.scorer.predict(model_input)


mlflow.models.set_model(PackagedModel())
