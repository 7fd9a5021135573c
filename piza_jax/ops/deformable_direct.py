"""Deformable attention sampling for a CPU and older GPUs: nothing that is gathered is ever written down.

The packed form gathers four neighbours in one read and combines them afterwards. A CPU has no use for that: what it
gathers is four times the whole memory, which it writes and reads again, one core at a time; a GPU is a tenth slower
with it. Here the rows are read inside the sum over the neighbours, and the backward pass is written out, so that it
needs no sum along the channels but one product with ones.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

Shapes = tuple[tuple[int, int], ...]


class _Points(NamedTuple):
    """Sampling points of one level, each array [P, Q].

    Attributes:
        rows: of the padded level's top left neighbour.
        x: how far the point lies from the left neighbour to the right one, 0..1.
        y: the same downwards.
        attention: weight; zero for a point with no neighbour in the level.
        inside: bool, False for such a point.
    """

    rows: jax.Array
    x: jax.Array
    y: jax.Array
    attention: jax.Array
    inside: jax.Array

    def weights(self) -> jax.Array:
        """Of the four neighbours: top left, top right, bottom left, bottom right, [4, P, Q]."""
        left, right = (1 - self.x) * self.attention, self.x * self.attention
        return jnp.stack([(1 - self.y) * left, (1 - self.y) * right, self.y * left, self.y * right])


def sample(values: jax.Array, locations: jax.Array, attention: jax.Array, shapes_hw: Shapes) -> jax.Array:
    """Weighted bilinear samples of multi-level features, see ``deformable.deformable_attention``.

    Args:
        values: [B, N, heads, C], the levels one after another.
        locations: float32 [B, Q, heads, L, P, 2], (x, y) in 0..1 of each level's whole canvas.
        attention: [B, Q, heads, L, P].
        shapes_hw: static (h, w) of each level.

    Returns:
        [B, Q, heads * C] in the dtype of ``values``, added up in float32.
    """
    batch, queries, heads, *points = locations.shape[:-1]
    # The queries last, so that what is computed for each point runs along them.
    operands = (
        jnp.moveaxis(values, 2, 1).reshape(batch * heads, *values.shape[1::2]),
        jnp.transpose(locations, (0, 2, 3, 4, 5, 1)).reshape(batch * heads, *points, 2, queries),
        jnp.transpose(attention, (0, 2, 3, 4, 1)).reshape(batch * heads, *points, queries),
    )
    out = jax.lax.map(lambda one: _sample_head(shapes_hw, *one), operands)
    return jnp.moveaxis(out.reshape(batch, heads, queries, -1), 1, 2).reshape(batch, queries, -1)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _sample_head(shapes_hw: Shapes, values: jax.Array, locations: jax.Array, attention: jax.Array) -> jax.Array:
    """Values [N, C], locations [L, P, 2, Q], attention [L, P, Q] of one (sample, head) -> [Q, C]."""
    total = jnp.zeros((locations.shape[-1], values.shape[-1]), jnp.float32)
    for level, (table, (h, w)) in enumerate(_tables(values, shapes_hw)):
        points = _find(locations[level], attention[level], (h, w))
        # Else they would be computed again for each channel.
        table, rows, weights = jax.lax.optimization_barrier((table, points.rows, points.weights()))
        for point in range(rows.shape[0]):
            for corner, step in enumerate(_steps(w)):
                read = _read(table, rows[point] + step).astype(jnp.float32)  # [Q, C]
                total = total + weights[corner, point][:, None] * read
    return total.astype(values.dtype)


def _forward(shapes_hw: Shapes, *operands: jax.Array) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    return _sample_head(shapes_hw, *operands), operands


def _backward(
    shapes_hw: Shapes, operands: tuple[jax.Array, ...], cotangent: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    values, locations, attention = operands
    cotangent = cotangent.astype(jnp.float32)  # [Q, C]
    of_values, of_locations, of_attention = [], [], []
    for level, (table, (h, w)) in enumerate(_tables(values, shapes_hw)):
        points = _find(locations[level], attention[level], (h, w))
        rows = jnp.stack([points.rows + step for step in _steps(w)])  # [4, P, Q]
        table, rows, weights = jax.lax.optimization_barrier((table, rows, points.weights()))
        padded = jnp.zeros(table.shape, jnp.float32)
        padded = padded.at[rows].add(weights[..., None] * cotangent, mode="promise_in_bounds")
        of_values.append(padded.reshape(h + 2, w + 2, -1)[1:-1, 1:-1].reshape(h * w, -1))
        products = _read(table, rows).astype(jnp.float32) * cotangent  # [4, P, Q, C]
        # A product with ones is many times faster than a sum along the last axis.
        ones = jnp.ones((products.shape[-1], 1), jnp.float32)
        of_weights = (products.reshape(-1, products.shape[-1]) @ ones).reshape(rows.shape)
        value, right, down = value_and_slopes(points.x, points.y, jax.lax.optimization_barrier(tuple(of_weights)))
        of_attention.append(jnp.where(points.inside, value, 0.0))
        of_locations.append(jnp.stack([w * points.attention * right, h * points.attention * down], axis=1))
    return (
        jnp.concatenate(of_values).astype(values.dtype),
        jnp.stack(of_locations).astype(locations.dtype),
        jnp.stack(of_attention).astype(attention.dtype),
    )


_sample_head.defvjp(_forward, _backward)


def value_and_slopes(x: jax.Array, y: jax.Array, corners: Sequence[jax.Array]) -> tuple[jax.Array, ...]:
    """Bilinear interpolation, and how much it grows to the right and downwards over the distance of two neighbours.

    Args:
        x: how far from the left neighbours to the right ones, 0..1.
        y: the same downwards.
        corners: values of the neighbours, top left, top right, bottom left, bottom right, shaped as x and y.
    """
    top_left, top_right, low_left, low_right = corners
    top, low = (1 - x) * top_left + x * top_right, (1 - x) * low_left + x * low_right
    right = (1 - y) * (top_right - top_left) + y * (low_right - low_left)
    return (1 - y) * top + y * low, right, low - top


def _tables(values: jax.Array, shapes_hw: Shapes) -> Iterator[tuple[jax.Array, tuple[int, int]]]:
    """Each level with a border of zeros, [(h + 2) * (w + 2), C], and its shape."""
    start = 0
    for h, w in shapes_hw:
        grid = values[start : start + h * w].reshape(h, w, -1)
        yield jnp.pad(grid, ((1, 1), (1, 1), (0, 0))).reshape((h + 2) * (w + 2), -1), (h, w)
        start += h * w


def _find(locations: jax.Array, attention: jax.Array, shape_hw: tuple[int, int]) -> _Points:
    """Where points [P, 2, Q] lie in the padded table of a level."""
    h, w = shape_hw
    x, y = locations[:, 0] * w - 0.5, locations[:, 1] * h - 0.5
    left, top = jnp.floor(x), jnp.floor(y)
    inside = (left >= -1) & (left <= w - 1) & (top >= -1) & (top <= h - 1)
    column = (jnp.clip(left, -1, w - 1) + 1).astype(jnp.int32)
    row = (jnp.clip(top, -1, h - 1) + 1).astype(jnp.int32)
    weight = jnp.where(inside, attention.astype(jnp.float32), 0.0)
    return _Points(row * (w + 2) + column, x - left, y - top, weight, inside)


def _steps(width: int) -> Sequence[int]:
    """From the row of the top left neighbour in a padded table to the rows of all four."""
    return 0, 1, width + 2, width + 3


def _read(table: jax.Array, rows: jax.Array) -> jax.Array:
    """Rows [..., C] of a table [N, C]; unlike ``table[rows]`` without a look at which of the numbers are negative."""
    dimensions = jax.lax.GatherDimensionNumbers(
        offset_dims=(rows.ndim,), collapsed_slice_dims=(0,), start_index_map=(0,)
    )
    return jax.lax.gather(table, rows[..., None], dimensions, (1, table.shape[1]), mode="promise_in_bounds")
