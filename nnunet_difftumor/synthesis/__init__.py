"""Synthetic tumors: what one is (spec), where it fits (sampler), and how it looks (renderer)."""
