"""Vocabularies and transforms fitted on the training split, and the tensors they make."""

from .pipeline import create_pipeline as create_pipeline
