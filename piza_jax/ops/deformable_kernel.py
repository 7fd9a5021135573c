"""Deformable attention sampling for a GPU as one kernel each way, in Pallas for Triton.

A program of the kernel holds a block of (query, head) pairs and adds up their samples in registers: operands are read
where they lie, a value as one row of channels, and nothing is written but the result. The backward pass adds to the
gradient of the values in float32, in memory, by atomic additions, whose order is not fixed: two runs may differ by
rounding.
"""

import math
from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton

from piza_jax.ops.deformable_direct import Shapes, value_and_slopes


class Blocks(NamedTuple):
    """How the work is cut: (query, head) pairs of a program, a power of two, and its warps."""

    pairs: int
    warps: int


FORWARD, BACKWARD = Blocks(32, 4), Blocks(16, 4)
_ONE_PAIR = Blocks(1, 1)
_MOST_ELEMENTS = 2**31 - 1  # of an array, whose places are counted in int32


def fits(values: jax.Array, locations: jax.Array) -> bool:
    """Whether the kernels can count the elements of these arrays and of what comes out."""
    out = math.prod(locations.shape[:3]) * values.shape[-1]
    return max(values.size, locations.size, out) <= _MOST_ELEMENTS


def sample(
    values: jax.Array, locations: jax.Array, attention: jax.Array, shapes_hw: Shapes, *, interpret: bool = False
) -> jax.Array:
    """Weighted bilinear samples of multi-level features, see ``deformable.deformable_attention``.

    Args:
        values: [B, N, heads, C], the levels one after another.
        locations: float32 [B, Q, heads, L, P, 2], (x, y) in 0..1 of each level's whole canvas.
        attention: [B, Q, heads, L, P].
        shapes_hw: static (h, w) of each level.
        interpret: run without a GPU, slowly, for tests.

    Returns:
        [B, Q, heads * C] in the dtype of ``values``, added up in float32.
    """
    batch, queries, heads, levels, points, _ = locations.shape
    pairs, samples = queries * heads, levels * points
    out = _sample(
        Static(shapes_hw, heads, interpret),
        values.reshape(batch, -1, values.shape[-1]),
        locations.reshape(batch, pairs, 2 * samples),
        attention.reshape(batch, pairs, samples),
    )
    return out.reshape(batch, queries, -1)


class Static(NamedTuple):
    """What a kernel is compiled for."""

    shapes_hw: Shapes
    heads: int
    interpret: bool


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _sample(static: Static, values: jax.Array, locations: jax.Array, attention: jax.Array) -> jax.Array:
    """Values [B, N * heads, C], locations [B, K, L * P * 2] and attention [B, K, L * P] of K pairs -> [B, K, C]."""
    shape = (*locations.shape[:2], values.shape[-1])
    call = _call(_forward_kernel, FORWARD, static, locations.shape, jax.ShapeDtypeStruct(shape, values.dtype))
    return call(values, locations, attention)


def _forward(static: Static, *operands: jax.Array) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    return _sample(static, *operands), operands


def _backward(static: Static, operands: tuple[jax.Array, ...], cotangent: jax.Array) -> tuple[jax.Array, ...]:
    values, locations, attention = operands
    zeros = jnp.zeros(values.shape, jnp.float32)
    shapes = [jax.ShapeDtypeStruct(x.shape, jnp.float32) for x in (zeros, locations, attention)]
    blocks = _ONE_PAIR if static.interpret else BACKWARD  # the interpreter keeps one of two additions to a place
    call = _call(_backward_kernel, blocks, static, locations.shape, shapes, input_output_aliases={4: 0})
    grads = call(values, locations, attention, cotangent, zeros)
    return tuple(grad.astype(x.dtype) for grad, x in zip(grads, operands, strict=True))


_sample.defvjp(_forward, _backward)


def _call(
    kernel: Any, blocks: Blocks, static: Static, locations: tuple[int, ...], out_shape: Any, **options: Any
) -> Any:
    """The kernel over all pairs [B, Q * heads] of a batch, a block at a time."""
    pairs, warps = blocks
    return pl.pallas_call(
        partial(kernel, static, pairs),
        out_shape=out_shape,
        grid=(pl.cdiv(locations[1], pairs), locations[0]),
        compiler_params=None if static.interpret else triton.CompilerParams(num_warps=warps, num_stages=1),
        interpret=static.interpret,
        name=f"deformable{kernel.__name__}",
        **options,
    )


class _Place(NamedTuple):
    """Of the block at hand: its sample, the pairs [K] and which of them there are, the channels [C] and which."""

    sample: jax.Array
    pairs: jax.Array
    there: jax.Array
    channels: jax.Array
    used: jax.Array

    def cells(self, rows: jax.Array) -> tuple[jax.Array, ...]:
        """Index of all channels of rows [K], [K, C]."""
        return self.sample, rows[:, None], self.channels[None]

    def mask(self, rows: jax.Array) -> jax.Array:
        """Of such an index, for rows that are there [K]."""
        return rows[:, None] & self.used[None]


def _place(pairs: int, count: int, channels: int) -> _Place:
    here = pl.program_id(0) * pairs + jnp.arange(pairs)
    lanes = jnp.arange(pl.next_power_of_2(channels))
    return _Place(pl.program_id(1), here, here < count, lanes, lanes < channels)


class _Point(NamedTuple):
    """One sampling point of each pair of a block, arrays [K].

    Attributes:
        number: of the point among all of a pair.
        size: static (h, w) of its level.
        x: how far it lies from the left neighbours to the right ones, 0..1.
        y: the same downwards.
        weight: attention.
        corners: row of each of the four neighbours, top left, top right, bottom left, bottom right, and whether it is
            there.
    """

    number: int
    size: tuple[int, int]
    x: jax.Array
    y: jax.Array
    weight: jax.Array
    corners: tuple[tuple[jax.Array, jax.Array], ...]


def _points(static: Static, place: _Place, locations: Any, attention: Any) -> Iterator[_Point]:
    points, start, head = attention.shape[-1] // len(static.shapes_hw), 0, place.pairs % static.heads
    for level, (h, w) in enumerate(static.shapes_hw):
        for index in range(level * points, (level + 1) * points):
            x, y, weight = (
                triton.load(ref.at[place.sample, place.pairs, column], mask=place.there, other=0.0).astype(jnp.float32)
                for ref, column in ((locations, 2 * index), (locations, 2 * index + 1), (attention, index))
            )
            x, y = x * w - 0.5, y * h - 0.5
            left, top = jnp.floor(x), jnp.floor(y)
            corners = []
            for down, right in ((0, 0), (0, 1), (1, 0), (1, 1)):
                column, row = left + right, top + down
                inside = place.there & (column >= 0) & (column < w) & (row >= 0) & (row < h)
                cell = jnp.where(inside, row * w + column, 0).astype(jnp.int32)
                corners.append(((start + cell) * static.heads + head, inside))
            yield _Point(index, (h, w), x - left, y - top, weight, tuple(corners))
        start += h * w


def _shares(point: _Point) -> tuple[jax.Array, ...]:
    """Of the four neighbours in a point's sample, each [K]."""
    x, y = point.x, point.y
    return (1 - y) * (1 - x), (1 - y) * x, y * (1 - x), y * x


def _forward_kernel(static: Static, pairs: int, values: Any, locations: Any, attention: Any, out: Any) -> None:
    place = _place(pairs, out.shape[1], out.shape[2])
    total = jnp.zeros((place.pairs.size, place.channels.size), jnp.float32)
    for point in _points(static, place, locations, attention):
        for (rows, inside), share in zip(point.corners, _shares(point), strict=True):
            read = triton.load(values.at[place.cells(rows)], mask=place.mask(inside), other=0.0)
            total += (point.weight * share)[:, None] * read.astype(jnp.float32)
    triton.store(out.at[place.cells(place.pairs)], total.astype(out.dtype), mask=place.mask(place.there))


def _plain_add(ref: Any, index: tuple[jax.Array, ...], value: jax.Array, *, mask: jax.Array) -> None:
    """What the interpreter has in place of an atomic addition with a mask: right where no place comes twice."""
    before = triton.load(ref.at[index], mask=mask, other=0.0)
    triton.store(ref.at[index], before + value, mask=mask)


def _backward_kernel(
    static: Static, pairs: int, values: Any, locations: Any, attention: Any, cotangent: Any, _: Any, *grads: Any
) -> None:
    of_values, of_locations, of_attention = grads
    place = _place(pairs, cotangent.shape[1], cotangent.shape[2])
    here = place.mask(place.there)
    add = _plain_add if static.interpret else triton.atomic_add
    flow = triton.load(cotangent.at[place.cells(place.pairs)], mask=here, other=0.0).astype(jnp.float32)
    for point in _points(static, place, locations, attention):
        products = []
        for (rows, inside), share in zip(point.corners, _shares(point), strict=True):
            index, mask = place.cells(rows), place.mask(inside)
            read = triton.load(values.at[index], mask=mask, other=0.0).astype(jnp.float32)
            products.append(jnp.sum(read * flow, axis=1))
            add(of_values, index, (point.weight * share)[:, None] * flow, mask=mask)
        h, w = point.size
        value, right, down = value_and_slopes(point.x, point.y, products)
        for ref, column, grad in (
            (of_attention, point.number, value),
            (of_locations, 2 * point.number, w * point.weight * right),
            (of_locations, 2 * point.number + 1, h * point.weight * down),
        ):
            triton.store(ref.at[place.sample, place.pairs, column], grad, mask=place.there)
