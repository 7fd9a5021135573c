"""Scale and shift (SSF, Lian et al. 2022) on the enhancer's attentions: a fine-tuning method of one's own."""

import jax
import jax.numpy as jnp
from flax import nnx

from piza_jax.models.grounding_dino import GroundingDino
from piza_jax.models.layers import Attention


class ScaleShift(nnx.Linear):
    """The dense layer that it stands for, its output scaled and shifted; starts as that layer."""

    def __init__(self, base: nnx.Linear, *, rngs: nnx.Rngs):
        """Take over the parameters of ``base`` under their names."""
        super().__init__(base.in_features, base.out_features, use_bias=base.use_bias, dtype=base.dtype, rngs=rngs)
        self.kernel, self.bias = base.kernel, base.bias
        self.ssf_scale = nnx.Param(jnp.ones(base.out_features))
        self.ssf_shift = nnx.Param(jnp.zeros(base.out_features))

    def __call__(self, inputs: jax.Array, out_sharding=None) -> jax.Array:
        """[..., inputs] -> [..., outputs]."""
        out = super().__call__(inputs, out_sharding)
        return out * self.ssf_scale[...].astype(out.dtype) + self.ssf_shift[...].astype(out.dtype)


def attach(detector: GroundingDino, *, rngs: nnx.Rngs) -> None:
    """Put it on the output of every attention of the enhancer."""
    for module in [module for _, module in nnx.iter_modules(detector.enhancer) if type(module) is Attention]:
        module.out = ScaleShift(module.out, rngs=rngs)


def split(model: nnx.Module) -> tuple[nnx.GraphDef, nnx.State, nnx.State]:
    """What ``training.loop.Task`` takes as split: only the new parameters train."""
    graph, train, frozen = nnx.split(model, lambda path, _: str(path[-1]).startswith("ssf_"), ...)
    return graph, train, frozen
