"""Where a tumor fits."""
