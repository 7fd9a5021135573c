"""A detector of shapes alone, to be filled from a file."""

from typing import cast

import jax
from flax import nnx

from piza_jax.piza.detector import PizaConfig, PizaDetector


class _OneKey:
    """Gives one key every time: shapes do not need more, and counting keys under a trace takes quadratic time."""

    def __init__(self):
        self._key = jax.random.key(0)

    def params(self) -> jax.Array:
        return self._key


def abstract_detector(config: PizaConfig) -> PizaDetector:
    """The detector of ``config`` with ``jax.ShapeDtypeStruct`` in place of arrays; nothing is allocated.

    Equal to ``nnx.eval_shape`` over its construction, and several times as fast.
    """
    rngs = cast(nnx.Rngs, _OneKey())
    return nnx.eval_shape(lambda: PizaDetector(config, rngs=rngs))
