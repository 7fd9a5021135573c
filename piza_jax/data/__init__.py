"""From records and photos to batches; imports no model."""
