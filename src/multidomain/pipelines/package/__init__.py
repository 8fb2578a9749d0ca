"""Recording a training in MLflow and registering its model."""

from .pipeline import create_pipeline as create_pipeline
