"""Triton kernels and their launchers, one module per operation. Imported where a kernel runs, and nowhere else."""
