"""Plain PyTorch versions of the operations: what kernels are compared with, and what runs on a CPU."""
