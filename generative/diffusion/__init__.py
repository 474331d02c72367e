"""From noise to a volume: schedule, samplers, and both networks together."""
