"""Searching for the configuration of a model: the space, and the study that goes through it."""
