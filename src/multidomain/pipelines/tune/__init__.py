"""Searching for the configuration of one architecture."""

from .pipeline import create_pipeline as create_pipeline
