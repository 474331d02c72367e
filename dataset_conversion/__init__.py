"""Converters to nnU-Net raw datasets, and the phantom."""
