"""Where a tumor is: its shape, what it pushes away, and where it may grow."""
