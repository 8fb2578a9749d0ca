"""Several models, several seeds, one data set: one leaderboard."""

from .pipeline import create_pipeline as create_pipeline
