"""Swin transformer backbone (Liu et al. 2021) for images of any size, channels last."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from piza_jax.models.layers import layer_norm, linear, rematerialised


def _relative_index(window: int) -> np.ndarray:
    """Row of the bias table for each pair of places in a window, [window ** 2, window ** 2]."""
    grid = np.stack(np.meshgrid(np.arange(window), np.arange(window), indexing="ij"), -1).reshape(-1, 2)
    offset = grid[:, None] - grid[None] + window - 1
    return offset[..., 0] * (2 * window - 1) + offset[..., 1]


def _shift_mask(h: int, w: int, window: int, shift: int) -> np.ndarray:
    """Additive mask [windows, window ** 2, window ** 2]: -100 between places that the cyclic shift brought together."""

    def bands(size: int) -> np.ndarray:
        return np.digitize(np.arange(size), [size - window, size - shift])

    regions = 3 * bands(h)[:, None] + bands(w)[None]
    regions = regions.reshape(h // window, window, w // window, window).transpose(0, 2, 1, 3).reshape(-1, window**2)
    return np.where(regions[:, :, None] == regions[:, None], 0.0, -100.0).astype(np.float32)


class WindowAttention(nnx.Module):
    """Self-attention within shifted or plain windows, with a learnt bias for each relative place.

    ``prompts`` is a place for a module that gives all windows more keys and values.
    """

    def __init__(self, features: int, heads: int, window: int, shift: int, *, dtype: jnp.dtype, rngs: nnx.Rngs):
        self.heads, self.window, self.shift = heads, window, shift
        self.prompts: nnx.Module | None = nnx.data(None)
        table = nnx.initializers.truncated_normal(0.02)(rngs.params(), ((2 * window - 1) ** 2, heads))
        self.relative_bias = nnx.Param(table)
        self.qkv = linear(features, 3 * features, dtype=dtype, rngs=rngs)
        self.out = linear(features, features, dtype=dtype, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, h, w, C] -> [B, h, w, C]; sides that are no multiple of the window are padded with zeros."""
        batch, h, w, features = x.shape
        size, shift = self.window, self.shift
        x = jnp.pad(x, ((0, 0), (0, -h % size), (0, -w % size), (0, 0)))
        rows, columns = x.shape[1] // size, x.shape[2] // size
        if shift:
            x = jnp.roll(x, (-shift, -shift), axis=(1, 2))
        qkv = self.qkv(x).reshape(batch, rows, size, columns, size, 3, self.heads, -1)
        qkv = qkv.transpose(5, 0, 1, 3, 2, 4, 6, 7).reshape(3, batch, rows * columns, size**2, self.heads, -1)
        bias = self.relative_bias[...][_relative_index(size)].transpose(2, 0, 1)[None]  # [1, heads, M, M]
        if shift:
            bias = bias + _shift_mask(rows * size, columns * size, size, shift)[:, None]
        bias = jnp.broadcast_to(bias, (rows * columns, *bias.shape[1:]))
        query, key, value = qkv
        if self.prompts is not None:
            key, value, bias = self.prompts(self.qkv, key, value, bias)
        attend = jax.vmap(partial(jax.nn.dot_product_attention, bias=bias.astype(qkv.dtype)))
        out = attend(query, key, value).reshape(batch, rows, columns, size, size, features)
        out = self.out(out.transpose(0, 1, 3, 2, 4, 5).reshape(x.shape))
        if shift:
            out = jnp.roll(out, (shift, shift), axis=(1, 2))
        return out[:, :h, :w]


class SwinBlock(nnx.Module):
    """Pre-norm window attention and a GELU feed-forward, both with residuals."""

    def __init__(
        self, features: int, heads: int, window: int, mlp_ratio: int, shifted: bool, *, dtype: jnp.dtype, rngs: nnx.Rngs
    ):
        shift = window // 2 if shifted else 0
        self.norm1 = layer_norm(features, dtype=dtype, rngs=rngs)
        self.attention = WindowAttention(features, heads, window, shift, dtype=dtype, rngs=rngs)
        self.norm2 = layer_norm(features, dtype=dtype, rngs=rngs)
        self.up = linear(features, mlp_ratio * features, dtype=dtype, rngs=rngs)
        self.down = linear(mlp_ratio * features, features, dtype=dtype, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, h, w, C] -> [B, h, w, C]."""
        x = x + self.attention(self.norm1(x))
        return x + self.down(jax.nn.gelu(self.up(self.norm2(x)), approximate=False))


class PatchMerging(nnx.Module):
    """2x2 neighbours onto the channel axis, row by row, then a norm and a projection to twice the channels."""

    def __init__(self, features: int, *, dtype: jnp.dtype, rngs: nnx.Rngs):
        self.norm = layer_norm(4 * features, dtype=dtype, rngs=rngs)
        self.reduction = linear(4 * features, 2 * features, bias=False, dtype=dtype, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, h, w, C] -> [B, ceil(h / 2), ceil(w / 2), 2 C]."""
        batch, h, w, features = x.shape
        x = jnp.pad(x, ((0, 0), (0, h % 2), (0, w % 2), (0, 0)))
        x = x.reshape(batch, (h + 1) // 2, 2, (w + 1) // 2, 2, features).transpose(0, 1, 3, 2, 4, 5)
        return self.reduction(self.norm(x.reshape(*x.shape[:3], 4 * features)))


class SwinStage(nnx.Module):
    """Blocks that alternate between plain and shifted windows, then an optional merging."""

    def __init__(self, features: int, depth: int, heads: int, config, merge: bool, *, dtype: jnp.dtype, rngs: nnx.Rngs):
        block = partial(SwinBlock, features, heads, config.window, config.mlp_ratio, dtype=dtype, rngs=rngs)
        self.blocks = nnx.List([block(bool(index % 2)) for index in range(depth)])
        self.downsample = PatchMerging(features, dtype=dtype, rngs=rngs) if merge else None


class Swin(nnx.Module):
    """Backbone that gives the normalised features of the stages from ``first_output`` on (strides 8, 16 and 32)."""

    def __init__(self, config, *, dtype: jnp.dtype, remat: str, rngs: nnx.Rngs):
        """``config`` is a ``SwinConfig`` (models/config.py)."""
        self.remat, self.first_output = remat, config.first_output
        # Padding is exactly zero; without a bias its features would be too, and the gradient would grow by
        # 1 / sqrt(epsilon) at each norm.
        bias = nnx.initializers.normal(0.1)
        self.patch_embed = nnx.Conv(
            3, config.dim, (4, 4), (4, 4), padding="VALID", bias_init=bias, dtype=dtype, rngs=rngs
        )
        self.patch_norm = layer_norm(config.dim, dtype=dtype, rngs=rngs)
        stages, out_norms = [], []
        features = config.dim
        for index, (depth, heads) in enumerate(zip(config.depths, config.heads, strict=True)):
            merge = index + 1 < len(config.depths)
            stages.append(SwinStage(features, depth, heads, config, merge, dtype=dtype, rngs=rngs))
            if index >= config.first_output:
                out_norms.append(layer_norm(features, dtype=dtype, rngs=rngs))
            features *= 2
        self.stages, self.out_norms = nnx.List(stages), nnx.List(out_norms)

    def __call__(self, images: jax.Array) -> list[jax.Array]:
        """[B, H, W, 3] normalised images -> [B, h, w, C] of the stages from ``first_output`` on, finest first."""
        _, height, width, _ = images.shape
        images = jnp.pad(images, ((0, 0), (0, -height % 4), (0, -width % 4), (0, 0)))
        x = self.patch_norm(self.patch_embed(images))
        run = rematerialised(SwinBlock.__call__, self.remat)
        outputs = []
        for index, stage in enumerate(self.stages):
            for block in stage.blocks:
                x = run(block, x)
            if index >= self.first_output:
                outputs.append(self.out_norms[index - self.first_output](x))
            if stage.downsample is not None:
                x = stage.downsample(x)
        return outputs
