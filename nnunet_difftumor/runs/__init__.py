"""What a run leaves behind: the log of its synthetic samples, figures by epoch, and pictures."""
