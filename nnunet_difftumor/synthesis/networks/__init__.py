"""Tumors that diffusion models draw: their weights, what they see of a scan, and how it becomes a tumor."""
