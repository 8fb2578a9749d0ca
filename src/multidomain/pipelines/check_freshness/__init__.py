"""How new the online store is, and how far its values differ from those offline."""

from .pipeline import create_pipeline as create_pipeline
