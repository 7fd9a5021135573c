"""Crop a box out of a full-resolution photo and resize it onto a static canvas, on the device.

The pixels are those of Pillow's ``Image.resize(size, BILINEAR, box=box)``: a triangle filter that widens with the
reduction (antialiased), in the coordinates of a float box. The geometry is that of ``data.views.make_view``.
"""

import math
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from piza_jax.ops.deformable import sharded_axes
from piza_jax.ops.platforms import traced_platform

METHODS = ("auto", "dense", "rows")

# Windows of rows, in canvases; a box that fits none of them takes the whole photo.
_WINDOWS = (0.5, 1, 1.5, 2, 3)

# Of the rows that a pass writes: a loop over them keeps XLA from fusing one pass into the next and computing it again.
_PIECES = 4

# Rounding a view to whole pixels can reduce its short side more than the long one: a thin one (1.5 to 1 pixels) by half
# as much again, most by less than this.
_THIN = 1.5
_ROUNDED = 1.02


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

    No resampled copy of a whole photo is made. "rows" takes the smallest of a few static windows that holds the box and
    adds up the few source rows under each filter, then, the picture turned, the columns, one stretch of memory each;
    levels in between are whole, as Pillow has them. "dense" multiplies with two filter matrices, which suits a matrix
    unit. Both stay within about one level of Pillow.

    Args:
        photo: uint8 [B, PH, PW, 3], RGB, content in the top left corner.
        photo_hw: int32 [B, 2], height and width of the content.
        box_xyxy: float32 [B, 4], photo pixels, inside the content and of positive size.
        canvas_hw: static height and width of the canvas.
        method: "dense", "rows", or "auto" for dense on a TPU and rows elsewhere.

    Returns:
        Canvas uint8 [B, H, W, 3], zero outside the content, and the content's height and width int32 [B, 2].

    Raises:
        ValueError: unknown method.
    """
    if method not in METHODS:
        raise ValueError(f"crop method {method!r} is none of {', '.join(METHODS)}")
    valid_hw = content_size(box_xyxy, canvas_hw)
    operands = photo, photo_hw, box_xyxy, valid_hw
    forms = {
        "dense": partial(_over_batch, partial(_dense, canvas_hw=canvas_hw)),
        "rows": partial(_over_batch, partial(_in_window, canvas_hw=canvas_hw)),
    }
    if method == "auto":
        platform = traced_platform()
        if platform is None:  # decided when lowered, so that a program exported for several platforms has all forms
            return jax.lax.platform_dependent(*operands, tpu=forms["dense"], default=forms["rows"]), valid_hw
        method = "dense" if platform == "tpu" else "rows"
    return forms[method](*operands), valid_hw


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


Filter = tuple[jax.Array, jax.Array]  # source pixels int32 [taps, outputs] along an axis, and their weights


def _in_window(
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
    windows = [(min(side, whole[0]), min(side, whole[1])) for side in sides if side < max(whole)] + [whole, whole]
    reductions = [max(window[0] / canvas_hw[0], window[1] / canvas_hw[1], 1.0) for window in windows]
    reductions[-2:] = _ROUNDED * reductions[-2], _THIN * reductions[-1]
    low, high = box_xyxy[1::-1], box_xyxy[:1:-1]  # (y, x)
    margin = jnp.maximum((high - low) / valid_hw, 1.0) + 1.0  # reach of a filter beyond the box
    first = jnp.maximum(jnp.floor(low - margin), 0.0).astype(jnp.int32)
    last = jnp.minimum(jnp.ceil(high + margin).astype(jnp.int32), photo_hw)
    reduced = jnp.max((high - low) / valid_hw)
    fits = [
        jnp.all(last - first <= jnp.array(window)) & (reduced <= reduction)
        for window, reduction in zip(windows[:-1], reductions[:-1], strict=True)
    ]
    choice = jnp.argmax(jnp.stack([*fits, jnp.array(True)]))  # the last takes all
    most = math.ceil(2 * reductions[-1])
    filters = [_taps(axis, photo_hw, box_xyxy, valid_hw, canvas_hw, most) for axis in (0, 1)]

    def of_window(
        window: tuple[int, int],
        reduction: float,
        seldom: bool,
        photos: jax.Array,
        number: jax.Array,
        first: jax.Array,
        *filters: Filter,
    ) -> jax.Array:
        corner = jnp.clip(first, 0, jnp.array(photos.shape[1:3]) - jnp.array(window))  # (y, x)
        taps = math.ceil(2 * reduction)  # no filter has more pixels in it
        # Filters past the content may lie anywhere.
        inside = [
            (jnp.clip(source[:taps] - corner[axis], 0, window[axis] - 1), weights[:taps])
            for axis, (source, weights) in enumerate(filters)
        ]
        return _by_rows(photos, number, corner, window, seldom, *inside)

    seldom = [False] * (len(windows) - 1) + [True]  # thin views alone need the last
    branches = [partial(of_window, *one) for one in zip(windows, reductions, seldom, strict=True)]
    return jax.lax.switch(choice, branches, photos, number, first, *filters)


def _taps(
    axis: int, photo_hw: jax.Array, box_xyxy: jax.Array, valid_hw: jax.Array, canvas_hw: tuple[int, int], taps: int
) -> Filter:
    """The filter along an axis of a photo, for at most so many pixels under it."""
    centre, support, start = _filters(box_xyxy[1 - axis], box_xyxy[3 - axis], valid_hw[axis], canvas_hw[axis])
    source = start + jnp.arange(taps, dtype=jnp.float32)[:, None]  # [taps, outputs]
    weights = _weights(source, centre, support, valid_hw[axis], photo_hw[axis])
    return jnp.minimum(source, photo_hw[axis] - 1).astype(jnp.int32), weights


def _by_rows(
    photos: jax.Array, number: jax.Array, corner: jax.Array, window: tuple[int, int], seldom: bool, *filters: Filter
) -> jax.Array:
    """Levels uint8 [H, W, 3] of a window of one photo under the filters of both axes, without a copy of the window.

    Each pass writes rows of levels; between them the picture is turned.
    """
    (down, weights_down), (across, weights_across) = filters
    height, width, channels = photos.shape[1:]
    lines = photos.reshape(-1, width * channels)
    down = down + number * height + corner[0]
    rows = _weigh_rows(lines, down, weights_down, corner[1] * channels, window[1] * channels, seldom)  # [H, w * 3]
    columns = rows.reshape(-1, window[1], channels).swapaxes(0, 1).reshape(window[1], -1)  # [w, H * 3]
    done = _weigh_rows(columns, across, weights_across, jnp.int32(0), columns.shape[1], seldom)  # [W, H * 3]
    return done.reshape(done.shape[0], -1, channels).swapaxes(0, 1)


def _weigh_rows(
    lines: jax.Array, rows: jax.Array, weights: jax.Array, first: jax.Array, width: int, seldom: bool
) -> jax.Array:
    """Weighted sums, uint8 [N, width], of rows of lines uint8 [h, n] from element ``first`` on.

    Rows and their weights are [taps, N]. What is ``seldom`` run loops over them: a smaller program, but a slower one.
    """
    each = jax.lax.GatherDimensionNumbers(offset_dims=(1,), collapsed_slice_dims=(0,), start_index_map=(0, 1))
    taps, outputs = rows.shape
    size = math.ceil(outputs / _PIECES)
    # The last piece starts earlier where they do not divide the rows, and writes some of them again.
    starts = jnp.minimum(jnp.arange(_PIECES) * size, outputs - size)
    corners = jnp.stack([rows, jnp.full_like(rows, first)], axis=-1)  # [taps, N, 2]

    def piece(number: jax.Array, out: jax.Array) -> jax.Array:
        start = starts[number]
        within = jax.lax.dynamic_slice_in_dim(corners, start, size, axis=1)
        shares = jax.lax.dynamic_slice_in_dim(weights, start, size, axis=1)

        def add(tap: int | jax.Array, total: jax.Array) -> jax.Array:
            read = jax.lax.gather(lines, within[tap], each, (1, width), mode="promise_in_bounds")  # [size, width]
            return total + read * shares[tap][:, None]

        total = jnp.zeros((size, width), jnp.float32)
        if seldom:
            total = jax.lax.fori_loop(0, taps, add, total)
        else:
            for tap in range(taps):
                total = add(tap, total)
        return jax.lax.dynamic_update_slice(out, _to_levels(total), (start, jnp.int32(0)))

    return jax.lax.fori_loop(0, _PIECES, piece, jnp.zeros((outputs, width), jnp.uint8))
