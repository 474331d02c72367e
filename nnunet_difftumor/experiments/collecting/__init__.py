"""What the runs of an experiment gave: figures of each arm, differences, tables."""
