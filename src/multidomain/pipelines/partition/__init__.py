"""Which domain and which split every impression belongs to."""

from .pipeline import create_pipeline as create_pipeline
