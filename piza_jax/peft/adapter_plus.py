"""Adapter+ (Steitz and Roth 2024) with PIZA's zoom condition, put into the enhancer's layers."""

import jax
import jax.numpy as jnp
from flax import nnx

from piza_jax.models.grounding_dino import GroundingDino


class AdapterPlus(nnx.Module):
    """Bottleneck with a learnt scale for each channel and a residual; adds the zoom condition after the up-projection.

    ``project_condition`` gives the adapter its own SiLU and projection of the condition, as the released weights have;
    without it the condition is added as it comes (the shared form, which meets the paper's parameter count).
    """

    def __init__(
        self, features: int, bottleneck: int, *, project_condition: bool = False, dtype: jnp.dtype, rngs: nnx.Rngs
    ):
        init = nnx.initializers.truncated_normal(0.01)  # Houlsby et al. 2019: close to the identity at the start
        self.down = nnx.Linear(features, bottleneck, kernel_init=init, dtype=dtype, rngs=rngs)
        self.up = nnx.Linear(bottleneck, features, kernel_init=init, dtype=dtype, rngs=rngs)
        self.scale = nnx.Param(jnp.ones((features,)))
        zeros = nnx.initializers.zeros
        condition = nnx.Linear(features, features, kernel_init=zeros, dtype=dtype, rngs=rngs)
        self.condition: nnx.Linear | None = nnx.data(condition if project_condition else None)

    def __call__(self, x: jax.Array, condition: jax.Array | None) -> jax.Array:
        """[B, N, D] and a condition [B, D] or None -> [B, N, D]."""
        out = self.up(jax.nn.gelu(self.down(x), approximate=False)) * self.scale[...].astype(x.dtype)
        if condition is not None:
            if self.condition is not None:
                condition = self.condition(jax.nn.silu(condition))
            out = out + condition[:, None].astype(x.dtype)
        return x + out


def attach(detector: GroundingDino, bottleneck: int, *, project_condition: bool, rngs: nnx.Rngs) -> None:
    """Put two adapters into each image and text layer of the enhancer; only image-side ones take the condition."""
    dtype, features = jnp.dtype(detector.config.dtype), detector.config.dim
    for layer in detector.enhancer.layers:
        for side, project in ((layer.image, project_condition), (layer.text, False)):
            side.adapter1 = AdapterPlus(features, bottleneck, project_condition=project, dtype=dtype, rngs=rngs)
            side.adapter2 = AdapterPlus(features, bottleneck, project_condition=project, dtype=dtype, rngs=rngs)
