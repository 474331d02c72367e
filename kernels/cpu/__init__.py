"""Forms of the operations that are quicker on a CPU than the references: they keep what they work on in the cache."""
