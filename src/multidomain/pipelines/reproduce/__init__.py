"""A table of a paper, ours beside theirs."""

from .pipeline import create_pipeline as create_pipeline
