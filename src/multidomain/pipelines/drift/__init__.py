"""How far features differ between splits and between domains."""

from .pipeline import create_pipeline as create_pipeline
