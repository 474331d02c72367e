"""Weights that others published, as weights of this package."""
