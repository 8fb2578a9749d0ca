"""Deleting what was prepared and trained for one variant."""

from .pipeline import create_pipeline as create_pipeline
