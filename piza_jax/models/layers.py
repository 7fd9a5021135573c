"""Building blocks that the detector's parts share. Parameters are float32; ``dtype`` is the compute type."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from piza_jax.ops.deformable import deformable_attention


def rematerialised(call: Callable[..., Any], remat: str) -> Callable[..., Any]:
    """A layer's unbound ``__call__`` with what DetectorConfig.remat says left out of memory until its backward pass."""
    if remat == "none":
        return call
    policy = jax.checkpoint_policies.dots_with_no_batch_dims_saveable if remat == "dots" else None
    return nnx.remat(call, policy=policy)


def run_layers(call: Callable[..., Any], layers: nnx.List, carry: Any, *arguments: Any, remat: str, scan: bool) -> Any:
    """``carry = call(layer, carry, *arguments)`` for each of several layers of one structure.

    Args:
        call: of a layer, the same for all.
        layers: equal but for their weights.
        carry: what goes from layer to layer.
        arguments: what all of them are given.
        remat: see DetectorConfig.
        scan: stack the weights and compile the layer once, as the body of a loop.
    """
    if not scan or len(layers) < 2:
        for layer in layers:
            carry = rematerialised(call, remat)(layer, carry, *arguments)
        return carry
    graphs, states = zip(*(nnx.split(layer) for layer in layers), strict=True)

    def body(carry: Any, state: Any) -> tuple[Any, None]:
        # A model closed over by scan must be a copy inside it, or its variables belong to the outer trace.
        return rematerialised(call, remat)(nnx.merge(graphs[0], state, copy=True), carry, *arguments), None

    return jax.lax.scan(body, carry, jax.tree.map(lambda *leaves: jnp.stack(leaves), *states))[0]


def linear(inputs: int, outputs: int, *, dtype: jnp.dtype, rngs: nnx.Rngs, bias: bool = True) -> nnx.Linear:
    """Dense layer with Glorot weights, as the reference initialises its transformers."""
    init = nnx.initializers.xavier_uniform()
    return nnx.Linear(inputs, outputs, use_bias=bias, kernel_init=init, dtype=dtype, rngs=rngs)


def affine(layer: nnx.Linear | nnx.Conv, dtype: jnp.dtype) -> tuple[jax.Array, jax.Array]:
    """Kernel [..., inputs, outputs] and bias [outputs] of what a layer computes, an update of it included."""
    kernel = layer.whole_kernel() if hasattr(layer, "whole_kernel") else layer.kernel[...]
    bias = jnp.zeros(layer.out_features) if layer.bias is None else layer.bias[...]
    return kernel.astype(dtype), bias.astype(dtype)


def layer_norm(features: int, *, dtype: jnp.dtype, rngs: nnx.Rngs, epsilon: float = 1e-5) -> nnx.LayerNorm:
    """LayerNorm with torch's epsilon (flax defaults to 1e-6) and the exact two-pass variance."""
    return nnx.LayerNorm(features, epsilon=epsilon, use_fast_variance=False, dtype=dtype, rngs=rngs)


class MLP(nnx.Module):
    """Dense layers with ReLU between them: [..., sizes[0]] -> [..., sizes[-1]]."""

    def __init__(self, sizes: tuple[int, ...], *, dtype: jnp.dtype, rngs: nnx.Rngs):
        self.layers = nnx.List([linear(a, b, dtype=dtype, rngs=rngs) for a, b in pairwise(sizes)])

    def __call__(self, x: jax.Array) -> jax.Array:
        """[..., sizes[0]] -> [..., sizes[-1]]."""
        for index, layer in enumerate(self.layers):
            x = layer(jax.nn.relu(x) if index else x)
        return x


class Attention(nnx.Module):
    """Multi-head attention with separate query, key and value projections and an optional boolean mask."""

    def __init__(self, features: int, heads: int, *, dtype: jnp.dtype, rngs: nnx.Rngs):
        self.heads = heads
        self.query = linear(features, features, dtype=dtype, rngs=rngs)
        self.key = linear(features, features, dtype=dtype, rngs=rngs)
        self.value = linear(features, features, dtype=dtype, rngs=rngs)
        self.out = linear(features, features, dtype=dtype, rngs=rngs)

    def __call__(
        self,
        query: jax.Array,
        key: jax.Array,
        value: jax.Array,
        mask: jax.Array | None = None,
        bias: jax.Array | None = None,
    ) -> jax.Array:
        """Attend.

        Args:
            query: [B, Q, D].
            key: [B, K, D].
            value: [B, K, D].
            mask: bool broadcastable to [B, heads, Q, K], True = may attend.
            bias: broadcastable to [B, heads, Q, K], added to the logits.

        Returns:
            [B, Q, D].
        """

        def split(x: jax.Array) -> jax.Array:
            return x.reshape(*x.shape[:2], self.heads, -1)

        out = jax.nn.dot_product_attention(
            split(self.query(query)), split(self.key(key)), split(self.value(value)), bias, mask
        )
        return self.out(out.reshape(*query.shape[:2], -1))


class DeformableAttention(nnx.Module):
    """Multi-scale deformable attention (Zhu et al. 2021, section 4.1) without the residual."""

    def __init__(self, features: int, heads: int, levels: int, points: int, *, dtype: jnp.dtype, rngs: nnx.Rngs):
        self.heads, self.levels, self.points = heads, levels, points
        samples = heads * levels * points
        zeros = nnx.initializers.zeros
        rays = _offset_bias(heads, levels, points)
        self.sampling_offsets = nnx.Linear(
            features,
            2 * samples,
            kernel_init=zeros,
            bias_init=lambda key, shape, dtype: rays.astype(dtype),
            dtype=jnp.float32,
            rngs=rngs,
        )
        self.attention_weights = nnx.Linear(features, samples, kernel_init=zeros, dtype=jnp.float32, rngs=rngs)
        self.value = linear(features, features, dtype=dtype, rngs=rngs)
        self.out = linear(features, features, dtype=dtype, rngs=rngs)

    def __call__(
        self,
        query: jax.Array,
        memory: jax.Array,
        memory_mask: jax.Array,
        references: jax.Array,
        shapes_hw: tuple[tuple[int, int], ...],
    ) -> jax.Array:
        """Sample the memory around each query's reference.

        Args:
            query: [B, Q, D], position encoding added.
            memory: [B, N, D].
            memory_mask: bool [B, N], True = valid.
            references: float32 [B, Q, L, 2] points or [B, Q, L, 4] cxcywh boxes, in 0..1 of each level's canvas.
            shapes_hw: static (h, w) of each level.

        Returns:
            [B, Q, D].
        """
        batch, queries, _ = query.shape
        values = jnp.where(memory_mask[..., None], self.value(memory), 0)
        values = values.reshape(batch, memory.shape[1], self.heads, -1)
        # Locations stay in float32: rounding them to bfloat16 moves samples by whole cells.
        wide = query.astype(jnp.float32)
        grid = (batch, queries, self.heads, self.levels, self.points)
        offsets = self.sampling_offsets(wide).reshape(*grid, 2)
        weights = jax.nn.softmax(self.attention_weights(wide).reshape(*grid[:3], -1)).reshape(grid)
        points = references[:, :, None, :, None, :2]
        if references.shape[-1] == 2:
            scale = 1.0 / jnp.array([(w, h) for h, w in shapes_hw], jnp.float32)[:, None]  # [L, 1, 2]
        else:
            scale = references[:, :, None, :, None, 2:] * (0.5 / self.points)
        sampled = deformable_attention(values, points + offsets * scale, weights, shapes_hw)
        return self.out(sampled)


def _offset_bias(heads: int, levels: int, points: int) -> jax.Array:
    """First sampling points: one ray a head, one step further out for each point."""
    angle = jnp.arange(heads) * (2.0 * jnp.pi / heads)
    rays = jnp.stack([jnp.cos(angle), jnp.sin(angle)], axis=-1)
    rays = rays / jnp.max(jnp.abs(rays), axis=-1, keepdims=True)
    steps = jnp.arange(1, points + 1, dtype=jnp.float32)
    grid = rays[:, None, None] * steps[None, None, :, None]
    return jnp.broadcast_to(grid, (heads, levels, points, 2)).reshape(-1)
