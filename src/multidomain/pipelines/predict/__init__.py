"""Scoring a file in batch with a registered model."""

from .pipeline import create_pipeline as create_pipeline
