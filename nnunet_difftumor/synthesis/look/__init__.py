"""What is drawn for a tumor but its place: presets, and texture."""
