"""The SOREC builder."""
