"""What nnU-Net's data loader sees: cases with synthetic tumors on top, drawn and rendered while training runs."""
