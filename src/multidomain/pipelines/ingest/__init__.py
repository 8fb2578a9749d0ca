"""Raw files to three typed tables."""

from .pipeline import create_pipeline as create_pipeline
