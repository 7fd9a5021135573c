"""Crop a box out of a full-resolution photo and resize it onto a static canvas, on the device.

The pixels are those of Pillow's ``Image.resize(size, BILINEAR, box=box)``: a triangle filter whose width grows with the
reduction (antialiased), evaluated in the coordinates of a float box. The geometry is that of ``data.views.make_view``.
"""

import math
from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp

# Sides of the square windows, in canvases, that the taps form cuts out before it filters; after them the whole photo.
WINDOW_CANVASES = (0.5, 1, 2)
METHODS = ("auto", "dense", "taps")


def content_size(box_xyxy: jax.Array, canvas_hw: tuple[int, int]) -> jax.Array:
    """Height and width int32 [..., 2] that a view of boxes float32 [..., 4] (photo px) takes on the canvas."""
    height, width = canvas_hw
    sides = box_xyxy[..., 2:] - box_xyxy[..., :2]  # (w, h)
    canvas = jnp.array([width, height], jnp.float32)
    scale = jnp.min(canvas / sides, axis=-1, keepdims=True)
    rounded = jnp.floor(sides * scale + 0.5)
    return jnp.clip(rounded, 1.0, canvas).astype(jnp.int32)[..., ::-1]


def crop_resize(
    photo: jax.Array,
    photo_hw: jax.Array,
    box_xyxy: jax.Array,
    canvas_hw: tuple[int, int],
    method: str = "auto",
) -> tuple[jax.Array, jax.Array]:
    """Views of one box a photo, resized with their aspect kept into the top left corner of the canvas.

    No resampled copy of the whole photo is ever made: "taps" cuts a window that just holds the box, chosen from a few
    static sizes at run time, and adds the few source rows and columns under each filter; "dense" multiplies with filter
    matrices, which suits a matrix unit. Agrees with Pillow within one level.

    Args:
        photo: uint8 [B, PH, PW, 3], RGB, content in the top left corner.
        photo_hw: int [B, 2], height and width of the content.
        box_xyxy: float32 [B, 4], photo pixels, inside the content and of positive size.
        canvas_hw: static (H, W) of the canvas.
        method: "dense", "taps", or "auto": dense on TPU, taps elsewhere.

    Returns:
        Canvas uint8 [B, H, W, 3] with zeros outside the content, and the content's height and width int32 [B, 2].

    Raises:
        ValueError: unknown method.
    """
    if method not in METHODS:
        raise ValueError(f"method {method!r} is none of {METHODS}")
    dense, taps = (partial(_crop_batch, one, canvas_hw=canvas_hw) for one in (_dense, _taps))
    valid_hw = content_size(box_xyxy, canvas_hw)
    operands = photo, photo_hw, box_xyxy, valid_hw
    if method == "auto":
        return jax.lax.platform_dependent(*operands, tpu=dense, default=taps), valid_hw
    return (dense if method == "dense" else taps)(*operands), valid_hw


def _crop_batch(one, photo, photo_hw, box_xyxy, valid_hw, *, canvas_hw):
    # map, not vmap: under vmap a switch would run every window size for every sample
    return jax.lax.map(lambda operands: one(*operands, canvas_hw=canvas_hw), (photo, photo_hw, box_xyxy, valid_hw))


def _filter_span(start, stop, length, size, outputs: int):
    """Centre [outputs], support [] and first source index [outputs] of each output pixel of one axis."""
    scale = (stop - start) / length
    support = jnp.maximum(scale, 1.0)
    centre = start + (jnp.arange(outputs) + 0.5) * scale
    first = jnp.maximum(jnp.floor(centre - support + 0.5), 0.0)
    last = jnp.minimum(jnp.floor(centre + support + 0.5), size)
    return centre, support, first, last


def _dense_weights(start, stop, length, size, outputs: int, inputs: int) -> jax.Array:
    """Filter matrix float32 [outputs, inputs] of one axis; rows past the content are zero."""
    centre, support, first, last = (x[..., None] for x in _filter_span(start, stop, length, size, outputs))
    source = jnp.arange(inputs, dtype=jnp.float32)
    weights = jnp.maximum(1.0 - jnp.abs((source + 0.5 - centre) / support), 0.0)
    weights = jnp.where((source >= first) & (source < last), weights, 0.0)
    weights = weights / jnp.maximum(jnp.sum(weights, axis=1, keepdims=True), 1e-6)
    return jnp.where(jnp.arange(outputs)[:, None] < length, weights, 0.0)


def _dense(photo, photo_hw, box_xyxy, valid_hw, *, canvas_hw):
    x0, y0, x1, y1 = box_xyxy
    (height, width), (rows, columns) = canvas_hw, photo.shape[:2]
    vertical = _dense_weights(y0, y1, valid_hw[0], photo_hw[0], height, rows).astype(jnp.bfloat16)
    horizontal = _dense_weights(x0, x1, valid_hw[1], photo_hw[1], width, columns).astype(jnp.bfloat16)
    matmul = partial(jnp.einsum, preferred_element_type=jnp.float32)
    across = matmul("wp,hpc->hwc", horizontal, photo.astype(jnp.bfloat16))
    # Whole levels up to 255 are exact in bfloat16, and Pillow rounds between its passes too.
    across = jnp.round(across).astype(jnp.bfloat16)
    return _to_levels(matmul("hp,pwc->hwc", vertical, across))


def _to_levels(pixels: jax.Array) -> jax.Array:
    return jnp.clip(jnp.floor(pixels + 0.5), 0.0, 255.0).astype(jnp.uint8)


def _num_taps(window: int, canvas: int, slack: float) -> int:
    return 2 * math.ceil(max(window / canvas, 1.0) * slack) + 1


def _taps_weights(start, stop, length, size, outputs, num_taps):
    """Source index int32 and weight float32, both [num_taps, outputs]."""
    centre, support, first, last = _filter_span(start, stop, length, size, outputs)
    source = first + jnp.arange(num_taps, dtype=jnp.float32)[:, None]
    weights = jnp.maximum(1.0 - jnp.abs((source + 0.5 - centre) / support), 0.0)
    weights = jnp.where(source < last, weights, 0.0)
    weights = weights / jnp.maximum(jnp.sum(weights, axis=0), 1e-6)
    weights = jnp.where(jnp.arange(outputs) < length, weights, 0.0)
    return jnp.minimum(source, size - 1.0).astype(jnp.int32), weights


def _taps(photo, photo_hw, box_xyxy, valid_hw, *, canvas_hw):
    rows, columns, _ = photo.shape
    sides = sorted({int(max(canvas_hw) * factor) for factor in WINDOW_CANVASES})
    windows = [(min(side, rows), min(side, columns)) for side in sides if side < max(rows, columns)] + [(rows, columns)]
    low, high = box_xyxy[:2][::-1], box_xyxy[2:][::-1]  # (y, x)
    margin = jnp.maximum((high - low) / valid_hw, 1.0) + 1.0
    first = jnp.maximum(jnp.floor(low - margin), 0.0).astype(jnp.int32)
    last = jnp.minimum(jnp.ceil(high + margin).astype(jnp.int32), photo_hw)
    fits = jnp.stack([jnp.all(last - first <= jnp.array(window)) for window in windows])
    branches = [partial(_window_taps, window=window, canvas_hw=canvas_hw) for window in windows]
    return jax.lax.switch(jnp.argmax(fits), branches, photo, photo_hw, box_xyxy, valid_hw, first)


def _window_taps(photo, photo_hw, box_xyxy, valid_hw, first, *, window, canvas_hw):
    start = jnp.clip(first, 0, jnp.array(photo.shape[:2]) - jnp.array(window))
    pixels = jax.lax.dynamic_slice(photo, (start[0], start[1], 0), (*window, photo.shape[2]))
    shift = jnp.concatenate([start[::-1], start[::-1]]).astype(jnp.float32)
    x0, y0, x1, y1 = box_xyxy - shift
    content_hw = photo_hw - start
    # A side much thinner than the other is rounded to whole pixels, which changes its scale by up to one half.
    taps_of = [_num_taps(max(window[0]/canvas_hw[0], window[1]/canvas_hw[1]), 1, 1.5)] * 2
    index, weight = _taps_weights(y0, y1, valid_hw[0], content_hw[0], canvas_hw[0], taps_of[0])
    down = sum(w[:, None, None] * pixels.at[i].get(mode="promise_in_bounds") for i, w in zip(index, weight))
    index, weight = _taps_weights(x0, x1, valid_hw[1], content_hw[1], canvas_hw[1], taps_of[1])
    return _to_levels(
        sum(w[:, None] * down.at[:, i].get(mode="promise_in_bounds") for i, w in zip(index, weight))
    )
