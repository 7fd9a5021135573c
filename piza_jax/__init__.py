"""PIZA on GroundingDINO in JAX: zoom into a photo until the thing that a sentence names fills a tight box."""

from piza_jax.errors import PizaError

__all__ = ["PizaError"]
__version__ = "0.1.0"
