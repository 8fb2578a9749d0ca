"""Features and scores, offline against online."""

from .pipeline import create_pipeline as create_pipeline
