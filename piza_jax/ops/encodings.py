"""Sinusoidal encodings: of pixels, of text positions, of boxes and of the zoom progress."""

import math

import jax
import jax.numpy as jnp


def _interleaved(angles: jax.Array) -> jax.Array:
    """[..., D] angles of paired frequencies -> [..., D], sine at even places and cosine at odd ones."""
    pairs = jnp.stack([jnp.sin(angles[..., 0::2]), jnp.cos(angles[..., 1::2])], axis=-1)
    return pairs.reshape(angles.shape)


def _wavelengths(features: int, temperature: float) -> jax.Array:
    return temperature ** (2.0 * (jnp.arange(features) // 2).astype(jnp.float32) / features)


def sine_encoding(values: jax.Array, features: int, temperature: float = 10000.0) -> jax.Array:
    """Encode scalars [...] (1.0 = a full turn at the shortest wavelength) as [..., features], float32."""
    angles = values.astype(jnp.float32)[..., None] * (2.0 * math.pi) / _wavelengths(features, temperature)
    return _interleaved(angles)


def image_encoding(
    valid_hw: jax.Array, shape_hw: tuple[int, int], features: int, temperature: float = 20.0
) -> jax.Array:
    """Position of each cell within the valid part of a feature level (DETR's normalised form).

    Args:
        valid_hw: [B, 2] number of valid rows and columns.
        shape_hw: static size of the level.
        features: size of the result, half of it for each axis.
        temperature: longest wavelength; 20 in GroundingDINO.

    Returns:
        float32 [B, h, w, features], rows first.
    """
    h, w = shape_hw
    rows, columns = jnp.arange(1, h + 1, dtype=jnp.float32), jnp.arange(1, w + 1, dtype=jnp.float32)
    valid = valid_hw.astype(jnp.float32)
    # The reference counts valid cells along each axis: the count stops in the padding, and is zero where the whole
    # row or column is padding.
    y = jnp.minimum(rows, valid[:, :1]) / (valid[:, :1] + 1e-6)  # [B, h]
    x = jnp.minimum(columns, valid[:, 1:]) / (valid[:, 1:] + 1e-6)  # [B, w]
    half = features // 2
    zero = sine_encoding(jnp.zeros(()), half, temperature)
    y_code, x_code = sine_encoding(y, half, temperature), sine_encoding(x, half, temperature)
    in_column = (columns <= valid[:, 1:])[:, None, :, None]
    in_row = (rows <= valid[:, :1])[:, :, None, None]
    return jnp.concatenate(
        [jnp.where(in_column, y_code[:, :, None], zero), jnp.where(in_row, x_code[:, None], zero)], axis=-1
    )


def box_encoding(boxes_cxcywh: jax.Array, features: int) -> jax.Array:
    """Boxes [..., 4] in 0..1 -> [..., 4 * features] in the order y, x, w, h (DINO's query encoding)."""
    codes = sine_encoding(boxes_cxcywh[..., jnp.array([1, 0, 2, 3])], features)  # [..., 4, features]
    return codes.reshape(*codes.shape[:-2], 4 * features)


def progress_encoding(progress: jax.Array, features: int) -> jax.Array:
    """Zoom progress [B] in 0..1 -> [B, features], all sines and then all cosines (diffusion's time encoding)."""
    half = features // 2
    rates = jnp.exp(jnp.arange(half, dtype=jnp.float32) * (-math.log(10000.0) / (half - 1)))
    angles = progress.astype(jnp.float32)[:, None] * rates
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)
