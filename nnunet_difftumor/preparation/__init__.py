"""`difftumor prepare`: from an nnU-Net raw dataset to everything that a training with synthetic tumors reads."""
