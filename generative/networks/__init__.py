"""The networks of DiffTumor, and their architectures by name."""
