"""Image normalisation on the device."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

# ImageNet statistics in 0..255 RGB, as the released checkpoints were trained with.
PIXEL_MEAN = np.array([123.675, 116.28, 103.53], np.float32)
PIXEL_STD = np.array([58.395, 57.12, 57.375], np.float32)


def valid_pixels(valid_hw: jax.Array, canvas_hw: tuple[int, int]) -> jax.Array:
    """Mask of the canvas pixels that hold image content.

    Args:
        valid_hw: int [B, 2], height and width of the content in the top left corner.
        canvas_hw: static height and width of the canvas.

    Returns:
        bool [B, H, W], True = valid.
    """
    rows = jnp.arange(canvas_hw[0]) < valid_hw[:, :1]  # [B, H]
    columns = jnp.arange(canvas_hw[1]) < valid_hw[:, 1:]  # [B, W]
    return rows[:, :, None] & columns[:, None, :]


def normalise(
    pixels: jax.Array,
    valid_hw: jax.Array,
    mean: Sequence[float] | np.ndarray = PIXEL_MEAN,
    std: Sequence[float] | np.ndarray = PIXEL_STD,
) -> jax.Array:
    """RGB pixels 0..255 of any dtype [B, H, W, 3] -> float32, zero mean and unit variance, zero outside the content.

    Mean and std are of red, green and blue, in 0..255.
    """
    scaled = (pixels.astype(jnp.float32) - np.asarray(mean, np.float32)) / np.asarray(std, np.float32)
    mask = valid_pixels(valid_hw, (pixels.shape[1], pixels.shape[2]))
    return jnp.where(mask[..., None], scaled, 0.0)
