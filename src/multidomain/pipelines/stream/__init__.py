"""Training one architecture on a stream."""

from .pipeline import create_pipeline as create_pipeline
