"""Projection of the backbone's stages to one width, and the coarser levels made from the last one."""

import jax
import jax.numpy as jnp
from flax import nnx

from piza_jax.models.config import DetectorConfig


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
        return self.group_norm(self.conv(x))


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
