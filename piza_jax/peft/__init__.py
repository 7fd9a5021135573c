"""Parameter-efficient fine-tuning over the same detector."""
