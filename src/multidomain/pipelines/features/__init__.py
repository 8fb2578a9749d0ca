"""Stage 4: features as they were known before each impression, through Feast."""

from .pipeline import create_pipeline as create_pipeline
