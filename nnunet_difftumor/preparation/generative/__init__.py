"""Training volumes of the generative models, from raw datasets and from scans without labels."""
