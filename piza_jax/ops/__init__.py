"""Pure array functions on jax only."""
