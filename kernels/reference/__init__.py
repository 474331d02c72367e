"""Naive PyTorch versions of the operations, as the papers have them: what everything quicker is compared with."""
