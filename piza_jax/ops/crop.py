"""Crop a box out of a full-resolution photo and resize it onto a static canvas, on the device.

The pixels are those of Pillow's ``Image.resize(size, BILINEAR, box=box)``: a triangle filter that widens with the
reduction (antialiased), in the coordinates of a float box. The geometry is that of ``data.views.make_view``.
"""

import math
from collections.abc import Callable
from functools import partial, reduce

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from piza_jax.ops.deformable import sharded_axes
from piza_jax.ops.platforms import traced_platform

METHODS = ("auto", "dense", "taps")

# Windows of the taps form, in canvases; a box that fits none of them takes the whole photo.
_WINDOWS = (0.5, 1, 2)

# Rounding a thin view to whole pixels (1.5 to 1) can reduce its short side by up to half as much again as the long one.
_THIN = 1.5


def content_size(box_xyxy: jax.Array, canvas_hw: tuple[int, int]) -> jax.Array:
    """Height and width, int32 [..., 2], that the view of a box float32 [..., 4] (photo px) takes on the canvas."""
    canvas_wh = jnp.array(canvas_hw[::-1], jnp.float32)
    sides = box_xyxy[..., 2:] - box_xyxy[..., :2]  # [..., (w, h)]
    scale = jnp.min(canvas_wh / sides, axis=-1, keepdims=True)
    content = jnp.clip(jnp.floor(sides * scale + 0.5), 1.0, canvas_wh)
    return content.astype(jnp.int32)[..., ::-1]


def crop_resize(
    photo: jax.Array,
    photo_hw: jax.Array,
    box_xyxy: jax.Array,
    canvas_hw: tuple[int, int],
    method: str = "auto",
) -> tuple[jax.Array, jax.Array]:
    """View of one box in each photo: resized, aspect kept, in the top left corner of the canvas.

    No resampled copy of a whole photo is made. "taps" cuts the smallest of a few static windows that holds the box and
    adds up the few source rows, then columns, under each filter; "dense" multiplies with two filter matrices, which
    suits a matrix unit. Both stay within about one level of Pillow.

    Args:
        photo: uint8 [B, PH, PW, 3], RGB, content in the top left corner.
        photo_hw: int32 [B, 2], height and width of the content.
        box_xyxy: float32 [B, 4], photo pixels, inside the content and of positive size.
        canvas_hw: static height and width of the canvas.
        method: "dense", "taps", or "auto" for dense on TPU and taps elsewhere.

    Returns:
        Canvas uint8 [B, H, W, 3], zero outside the content, and the content's height and width int32 [B, 2].

    Raises:
        ValueError: unknown method.
    """
    if method not in METHODS:
        raise ValueError(f"crop method {method!r} is none of {', '.join(METHODS)}")
    valid_hw = content_size(box_xyxy, canvas_hw)
    operands = photo, photo_hw, box_xyxy, valid_hw
    dense, taps = (partial(_over_batch, partial(form, canvas_hw=canvas_hw)) for form in (_dense, _taps))
    if method == "auto":
        platform = traced_platform()
        if platform is None:  # decided when lowered, so that a program exported for several platforms has both forms
            return jax.lax.platform_dependent(*operands, tpu=dense, default=taps), valid_hw
        method = "dense" if platform == "tpu" else "taps"
    return (dense if method == "dense" else taps)(*operands), valid_hw


def _over_batch(form: Callable[..., jax.Array], *operands: jax.Array) -> jax.Array:
    """Apply form to each sample: by map, since vmap would run every window of the switch for every sample.

    The form takes all photos and the number of its own, of which a map over photos would make a copy each.
    """

    def run(photos: jax.Array, *local: jax.Array) -> jax.Array:
        photos = jnp.asarray(photos)  # a traced number indexes no NumPy array
        return jax.lax.map(lambda sample: form(photos, *sample), (jnp.arange(photos.shape[0]), *local))

    if axes := sharded_axes(operands[0].shape[0]):
        spec = PartitionSpec(axes)
        return jax.shard_map(run, in_specs=(spec,) * len(operands), out_specs=spec, check_vma=False)(*operands)
    return run(*operands)


def _filters(start: jax.Array, stop: jax.Array, length: jax.Array, outputs: int) -> tuple[jax.Array, ...]:
    """Centre [outputs], half width [] and first source index [outputs] of the filters along one axis, all float32."""
    scale = (stop - start) / length
    support = jnp.maximum(scale, 1.0)
    centre = start + (jnp.arange(outputs) + 0.5) * scale
    return centre, support, jnp.maximum(jnp.floor(centre - support + 0.5), 0.0)


def _weights(source: jax.Array, centre: jax.Array, support: jax.Array, length: jax.Array, size: jax.Array) -> jax.Array:
    """Weights float32 [S, outputs] of source pixels [S, 1] or [S, outputs] under each filter; their sum is one."""
    inside = (source >= 0) & (source < size)
    weights = jnp.where(inside, jnp.maximum(1.0 - jnp.abs(source + 0.5 - centre) / support, 0.0), 0.0)
    weights = weights / jnp.maximum(jnp.sum(weights, axis=0), 1e-6)
    return jnp.where(jnp.arange(centre.shape[0]) < length, weights, 0.0)


def _to_levels(pixels: jax.Array) -> jax.Array:
    return jnp.clip(jnp.floor(pixels + 0.5), 0.0, 255.0).astype(jnp.uint8)


def _dense(
    photos: jax.Array,
    number: jax.Array,
    photo_hw: jax.Array,
    box_xyxy: jax.Array,
    valid_hw: jax.Array,
    *,
    canvas_hw: tuple[int, int],
) -> jax.Array:
    photo = photos[number]

    def matrix(axis: int) -> jax.Array:  # [PH, H] for axis 0, [PW, W] for axis 1
        low, high = box_xyxy[1 - axis], box_xyxy[3 - axis]
        centre, support, _ = _filters(low, high, valid_hw[axis], canvas_hw[axis])
        source = jnp.arange(photo.shape[axis], dtype=jnp.float32)[:, None]
        weights = _weights(source, centre, support, valid_hw[axis], photo_hw[axis])
        return jax.lax.reduce_precision(weights, exponent_bits=8, mantissa_bits=7)

    # A TPU multiplies float32 in one bfloat16 pass by default; so that this loses nothing, weights are rounded to
    # bfloat16 before, and levels between the two passes to whole numbers, as in Pillow.
    across = jnp.round(jnp.einsum("xw,yxc->ywc", matrix(1), photo.astype(jnp.float32)))
    return _to_levels(jnp.einsum("yh,ywc->hwc", matrix(0), across))


def _taps(
    photos: jax.Array,
    number: jax.Array,
    photo_hw: jax.Array,
    box_xyxy: jax.Array,
    valid_hw: jax.Array,
    *,
    canvas_hw: tuple[int, int],
) -> jax.Array:
    whole = photos.shape[1], photos.shape[2]
    sides = [math.ceil(factor * max(canvas_hw)) for factor in _WINDOWS]
    windows = [(min(side, whole[0]), min(side, whole[1])) for side in sides if side < max(whole)] + [whole]
    low, high = box_xyxy[1::-1], box_xyxy[:1:-1]  # (y, x)
    margin = jnp.maximum((high - low) / valid_hw, 1.0) + 1.0  # reach of a filter beyond the box
    first = jnp.maximum(jnp.floor(low - margin), 0.0).astype(jnp.int32)
    last = jnp.minimum(jnp.ceil(high + margin).astype(jnp.int32), photo_hw)
    fits = jnp.stack([jnp.all(last - first <= jnp.array(window)) for window in windows])
    branches = [partial(_taps_in_window, window=window, canvas_hw=canvas_hw) for window in windows]
    return jax.lax.switch(jnp.argmax(fits), branches, photos, number, photo_hw, box_xyxy, valid_hw, first)


def _taps_in_window(
    photos: jax.Array,
    number: jax.Array,
    photo_hw: jax.Array,
    box_xyxy: jax.Array,
    valid_hw: jax.Array,
    first: jax.Array,
    *,
    window: tuple[int, int],
    canvas_hw: tuple[int, int],
) -> jax.Array:
    corner = jnp.clip(first, 0, jnp.array(photos.shape[1:3]) - jnp.array(window))  # (y, x)
    pixels = jax.lax.dynamic_slice(photos, (number, corner[0], corner[1], 0), (1, *window, photos.shape[3]))[0]
    reduction = max(window[0] / canvas_hw[0], window[1] / canvas_hw[1])
    taps = jnp.arange(2 * math.ceil(max(_THIN * reduction, 1.0)) + 1, dtype=jnp.float32)[:, None]

    def along(axis: int, values: jax.Array) -> jax.Array:
        low, high = box_xyxy[1 - axis] - corner[axis], box_xyxy[3 - axis] - corner[axis]
        size = photo_hw[axis] - corner[axis]
        centre, support, start = _filters(low, high, valid_hw[axis], canvas_hw[axis])
        source = start + taps  # [taps, outputs]
        weights = _weights(source, centre, support, valid_hw[axis], size)
        # Clamped twice: taps past the photo weigh nothing, and filters past the content may lie anywhere.
        rows = jnp.clip(source, 0, jnp.minimum(size, window[axis]) - 1).astype(jnp.int32)
        place: tuple[slice, ...] = (slice(None),) * axis
        terms = [
            values.at[(*place, row)].get(mode="promise_in_bounds") * jnp.expand_dims(weight, (1 - axis, 2))
            for row, weight in zip(rows, weights, strict=True)
        ]
        return reduce(jnp.add, terms)

    return _to_levels(along(1, along(0, pixels)))
