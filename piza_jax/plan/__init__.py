"""What a run would need on hardware that is not here: memory, work, traffic and time of the real programs."""
