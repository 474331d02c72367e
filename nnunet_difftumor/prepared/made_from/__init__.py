"""What a prepared dataset was made from: the raw files by content, the plans and the settings."""
