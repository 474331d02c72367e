"""Diffusion tumors while training runs: one process per rank owns the device and the models, and workers ask it."""
