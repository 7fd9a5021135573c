"""SOREC-mini's world: drawn streets, many small look-alikes in each, and sentences that single one out."""
