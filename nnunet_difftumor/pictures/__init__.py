"""Pictures of what a trainer sees: before a training, and any sample of a run again."""
