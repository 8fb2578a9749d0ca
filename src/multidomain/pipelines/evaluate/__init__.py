"""Scores of the test split, their metrics and pictures."""

from .pipeline import create_pipeline as create_pipeline
