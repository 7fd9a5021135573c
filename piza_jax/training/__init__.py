"""Losses, optimiser, sharding, checkpoints and the loop."""
