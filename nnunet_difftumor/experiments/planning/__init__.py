"""Plans of experiments: what they are, checked to the last key, and read from files."""
