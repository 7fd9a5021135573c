"""The detector, as Flax NNX modules."""
