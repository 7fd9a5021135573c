"""A detector of shapes alone, to be filled from a file."""

from flax import nnx

from piza_jax.models.keys import make_keys
from piza_jax.piza.detector import PizaConfig, PizaDetector


def abstract_detector(config: PizaConfig) -> PizaDetector:
    """The detector of ``config`` with ``jax.ShapeDtypeStruct`` in place of arrays; nothing is allocated."""
    return nnx.eval_shape(lambda: PizaDetector(config, rngs=make_keys(0)))
