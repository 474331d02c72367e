"""Predicted tumors that do not belong to their organ, taken out of label maps."""
