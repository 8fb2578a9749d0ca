"""Hold every table to its schema; set bad rows apart."""

from .pipeline import create_pipeline as create_pipeline
