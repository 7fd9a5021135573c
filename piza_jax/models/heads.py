"""Contrastive class scores and the box branch."""

import math

import jax
import jax.numpy as jnp
from flax import nnx

from piza_jax.models.config import DetectorConfig


class ContrastiveHead(nnx.Module):
    """Score of each query against each token, optionally scaled and with a learnt bias."""

    def __init__(self, config: DetectorConfig):
        self.scale = config.dim**-0.5 if config.class_scale else 1.0
        # A prior of 1% keeps the first focal losses small.
        self.bias = nnx.Param(jnp.full((1,), -math.log(99.0))) if config.class_bias else nnx.data(None)

    def __call__(self, queries: jax.Array, text: jax.Array, token_mask: jax.Array) -> jax.Array:
        """[B, Q, D], [B, L, D], bool [B, L] -> float32 logits [B, Q, L], -inf on padding tokens."""
        logits = jnp.einsum("bqd,bld->bql", queries, text, preferred_element_type=jnp.float32) * self.scale
        if self.bias is not None:
            logits = logits + self.bias[...]
        return jnp.where(token_mask[:, None], logits, -jnp.inf)
