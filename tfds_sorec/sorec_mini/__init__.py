"""The SOREC-mini builder."""
