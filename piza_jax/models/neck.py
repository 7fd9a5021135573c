"""Projection of the backbone's stages to one width, and the coarser levels made from the last one."""

import jax
import jax.numpy as jnp
from flax import nnx

from piza_jax.models.config import DetectorConfig
from piza_jax.models.layers import affine


class NeckLevel(nnx.Module):
    """A convolution and a group norm of 32 groups."""

    def __init__(self, inputs: int, outputs: int, kernel: int, *, dtype: jnp.dtype, rngs: nnx.Rngs):
        padding = ((kernel // 2, kernel // 2),) * 2
        stride = 2 if kernel == 3 else 1
        self.conv = nnx.Conv(
            inputs, outputs, (kernel, kernel), (stride, stride), padding=padding, dtype=dtype, rngs=rngs
        )
        self.group_norm = nnx.GroupNorm(
            outputs, num_groups=32, epsilon=1e-5, use_fast_variance=False, dtype=dtype, rngs=rngs
        )

    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, h, w, C] -> [B, h', w', D]."""
        if self.conv.kernel_size == (1, 1):  # a product of matrices, for which no library has to find an algorithm
            kernel, bias = affine(self.conv, x.dtype)
            return _group_norm(self.group_norm, x @ kernel[0, 0] + bias)
        return _group_norm(self.group_norm, self.conv(x))


def _group_norm(norm: nnx.GroupNorm, x: jax.Array) -> jax.Array:
    """What the norm computes of [B, h, w, D], its means first over places, channel by channel, then over a group.

    Over both at once, as it has them itself, is no sum along memory that stands together, and slower.
    """
    assert norm.scale is not None
    assert norm.bias is not None
    wide = x.astype(jnp.float32)
    groups = (x.shape[0], norm.num_groups, x.shape[-1] // norm.num_groups)

    def mean(values: jax.Array) -> jax.Array:  # [B, h, w, D] -> [B, 1, 1, D]
        of_channels = jnp.mean(values, axis=(1, 2)).reshape(groups)
        of_groups = jnp.mean(of_channels, axis=-1, keepdims=True)
        return jnp.broadcast_to(of_groups, groups).reshape(x.shape[0], 1, 1, -1)

    centred = wide - mean(wide)
    normed = centred * jax.lax.rsqrt(mean(centred**2) + norm.epsilon)
    return (normed * norm.scale[...] + norm.bias[...]).astype(x.dtype)


class Neck(nnx.Module):
    """1x1 convolutions of the stages, then 3x3 convolutions of stride 2 down to the configured number of levels."""

    def __init__(self, config: DetectorConfig, *, dtype: jnp.dtype, rngs: nnx.Rngs):
        swin = config.swin
        widths = [swin.dim * 2**index for index in range(swin.first_output, len(swin.depths))]
        self.lateral = nnx.List([NeckLevel(width, config.dim, 1, dtype=dtype, rngs=rngs) for width in widths])
        extra = [widths[-1]] + [config.dim] * (config.levels - len(widths) - 1)
        extra = extra[: config.levels - len(widths)]
        self.extra = nnx.List([NeckLevel(width, config.dim, 3, dtype=dtype, rngs=rngs) for width in extra])

    def __call__(self, stages: list[jax.Array]) -> list[jax.Array]:
        """Stages [B, h, w, C], finest first -> levels [B, h, w, D]."""
        levels = [layer(stage) for layer, stage in zip(self.lateral, stages, strict=True)]
        x = stages[-1]
        for layer in self.extra:
            x = layer(x)
            levels.append(x)
        return levels
