"""A log's raw files, from where their vendor offers them."""

from .pipeline import create_pipeline as create_pipeline
