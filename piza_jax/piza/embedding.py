"""Zooming-step embedding: how far the search has come, for the adapters."""

import jax
from flax import nnx

from piza_jax.ops.encodings import progress_encoding


class ZoomEmbedding(nnx.Module):
    """Progress -> sinusoid -> two dense layers with SiLU between them."""

    def __init__(self, features: int, *, start_at_zero: bool, rngs: nnx.Rngs):
        """``start_at_zero`` makes the first output zero, so that adding it leaves a pretrained detector as it is."""
        self.features = features
        self.hidden = nnx.Linear(features, features, rngs=rngs)
        init = nnx.initializers.zeros if start_at_zero else nnx.initializers.lecun_normal()
        self.out = nnx.Linear(features, features, kernel_init=init, rngs=rngs)

    def __call__(self, progress: jax.Array) -> jax.Array:
        """Progress float32 [B] in 0..1 -> [B, features]."""
        return self.out(jax.nn.silu(self.hidden(progress_encoding(progress, self.features))))
