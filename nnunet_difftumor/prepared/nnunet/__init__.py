"""What nnU-Net keeps of a dataset: dataset.json, plans, folds and preprocessed cases, read and checked."""
