"""Multi-scale deformable attention sampling (Zhu et al. 2021, eq. 3), head by head, in the form that a device likes.

On a TPU it is one packed gather: the four neighbours of a sampling point are stored side by side in one row of a table,
so a point costs one row read instead of four. The table of one (sample, head) is small enough for a fast memory;
``lax.map`` walks over them. A GPU that Triton compiles for has kernels of its own, in ``deformable_kernel``, and all
other devices the form in ``deformable_direct``.
"""

import math
import os
import re
from collections.abc import Sequence
from functools import cache, partial

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from piza_jax.ops import deformable_direct
from piza_jax.ops.platforms import traced_platform

BATCH_AXES = ("data", "fsdp")
HEAD_AXIS = "tensor"
FORMS = ("direct", "packed", "kernel")
_LOWERED = {"tpu": "packed", "default": "direct"}
_LEAST_CAPABILITY = 8.0  # of a GPU, that XLA compiles Triton's kernels for
# In XLA_FLAGS: additions in an order that is not fixed are not wanted.
_DETERMINISTIC = re.compile(r"--xla_gpu_(deterministic_ops|exclude_nondeterministic_ops)(=true|=1)?(\s|$)", re.I)


def _pack_level(values: jax.Array, shape_hw: tuple[int, int]) -> jax.Array:
    """[h * w, C] -> [(h + 1) * (w + 1), 4 C]: row (y, x) holds the 2x2 neighbours whose top left one is (y-1, x-1)."""
    h, w = shape_hw
    padded = jnp.pad(values.reshape(h, w, -1), ((1, 1), (1, 1), (0, 0)))
    corners = [padded[:-1, :-1], padded[:-1, 1:], padded[1:, :-1], padded[1:, 1:]]
    return jnp.concatenate(corners, axis=-1).reshape((h + 1) * (w + 1), -1)


def _rows_and_weights(
    locations: jax.Array, attention: jax.Array, shapes_hw: Sequence[tuple[int, int]]
) -> tuple[jax.Array, jax.Array]:
    """Table row [Q, L, P] and the four corner weights [Q, L, P, 4] of each sampling point of one (sample, head)."""
    sizes = jnp.array([(w, h) for h, w in shapes_hw], jnp.float32)[:, None]  # [L, 1, 2]
    starts, total = [], 0
    for h, w in shapes_hw:
        starts.append(total)
        total += (h + 1) * (w + 1)
    pixels = locations * sizes - 0.5  # [Q, L, P, 2]
    floor = jnp.floor(pixels)
    fraction = pixels - floor
    inside = jnp.all((floor >= -1.0) & (floor <= sizes - 1.0), axis=-1)
    cell = (jnp.clip(floor, -1.0, sizes - 1.0) + 1.0).astype(jnp.int32)
    widths = jnp.array([w + 1 for _, w in shapes_hw], jnp.int32)[:, None]
    rows = jnp.array(starts, jnp.int32)[:, None] + cell[..., 1] * widths + cell[..., 0]
    fx, fy = fraction[..., 0], fraction[..., 1]
    corner = jnp.stack([(1 - fy) * (1 - fx), (1 - fy) * fx, fy * (1 - fx), fy * fx], axis=-1)
    return rows, corner * jnp.where(inside, attention, 0.0)[..., None]


def _combine_lanes(gathered: jax.Array, weights: jax.Array) -> jax.Array:
    """[Q, K, 4 C] rows and [Q, K, 4] weights -> [Q, C].

    Keeps all 4 C lanes together and lets one small product add the corners, which is 3 to 8 times faster on a TPU.
    """
    channels = gathered.shape[-1] // 4
    spread = jnp.repeat(jnp.eye(4, dtype=gathered.dtype), channels, axis=1)  # [4, 4 C]
    lanes = jnp.einsum("qkc,cd->qkd", weights.astype(gathered.dtype), spread)
    fold = jnp.tile(jnp.eye(channels, dtype=gathered.dtype), (4, 1))  # [4 C, C]
    return jnp.sum(gathered * lanes, axis=1) @ fold


def _sample_head(operands: tuple[jax.Array, jax.Array, jax.Array], shapes_hw: tuple[tuple[int, int], ...]) -> jax.Array:
    """Values [N, C], locations [Q, L, P, 2], attention [Q, L, P] of one (sample, head) -> [Q, C]."""
    values, locations, attention = operands
    tables, start = [], 0
    for h, w in shapes_hw:
        tables.append(_pack_level(values[start : start + h * w], (h, w)))
        start += h * w
    table = jnp.concatenate(tables)
    rows, weights = _rows_and_weights(locations, attention, shapes_hw)
    queries = rows.shape[0]
    gathered = table.at[rows.reshape(queries, -1)].get(mode="promise_in_bounds")  # [Q, L * P, 4 C]
    return _combine_lanes(gathered, weights.reshape(queries, -1, 4))


def _sample_local(
    values: jax.Array,
    locations: jax.Array,
    attention: jax.Array,
    *,
    shapes_hw: tuple[tuple[int, int], ...],
    form: str | None,
) -> jax.Array:
    run = partial(_sample_local, shapes_hw=shapes_hw)
    if form is None:  # decided when lowered, so that a program exported for several platforms has the form of each
        forms = {name: partial(run, form=form) for name, form in _LOWERED.items()}
        return jax.lax.platform_dependent(values, locations, attention, **forms)
    if form == "direct":
        return deformable_direct.sample(values, locations, attention, shapes_hw)
    if form == "kernel":
        from piza_jax.ops import deformable_kernel  # Pallas takes a while to load

        if not deformable_kernel.fits(values, locations):
            return run(values, locations, attention, form="direct")
        return deformable_kernel.sample(values, locations, attention, shapes_hw)
    batch, queries, heads = locations.shape[:3]
    body = jax.checkpoint(partial(_sample_head, shapes_hw=shapes_hw))
    flat = tuple(
        jnp.moveaxis(array, 2, 1).reshape(batch * heads, array.shape[1], *array.shape[3:])
        for array in (values, locations, attention)
    )
    out = jax.lax.map(body, flat).reshape(batch, heads, queries, -1)
    return jnp.moveaxis(out, 1, 2).reshape(batch, queries, -1)


def sharded_axes(batch: int) -> tuple[str, ...]:
    """Mesh axes in force that a batch of that size is spread over, or none."""
    sizes = _automatic_axes()
    axes = tuple(name for name in BATCH_AXES if name in sizes)
    size = math.prod(sizes[name] for name in axes)
    return axes if size > 1 and batch % size == 0 else ()


def _head_axis(heads: int) -> str | None:
    """Mesh axis in force that so many heads are spread over, or None."""
    size = _automatic_axes().get(HEAD_AXIS, 1)
    return HEAD_AXIS if size > 1 and heads % size == 0 else None


def _automatic_axes() -> dict[str, int]:
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        return {}
    kinds = zip(mesh.axis_names, mesh.axis_types, strict=True)
    return {name: mesh.shape[name] for name, kind in kinds if kind == jax.sharding.AxisType.Auto}


def _form_for(platform: str | None) -> str | None:
    if platform is None:
        return None
    if platform in ("gpu", "cuda") and _takes_kernels():
        return "kernel"
    return _LOWERED.get(platform, _LOWERED["default"])


@cache
def _takes_kernels() -> bool:
    """Whether all GPUs here are NVIDIA's of Ampere or later, and XLA_FLAGS do not ask for results that can be repeated.

    False without a GPU, as where a program is but planned.
    """
    if _DETERMINISTIC.search(os.environ.get("XLA_FLAGS", "")):
        return False
    try:
        capabilities = [float(device.compute_capability) for device in jax.local_devices(backend="gpu")]
    except (RuntimeError, AttributeError, ValueError):  # none, or of another maker, whose numbers are names
        return False
    return min(capabilities) >= _LEAST_CAPABILITY


def deformable_attention(
    values: jax.Array,
    locations: jax.Array,
    attention: jax.Array,
    shapes_hw: Sequence[tuple[int, int]],
    *,
    form: str | None = None,
) -> jax.Array:
    """Weighted bilinear samples of multi-level features; a point outside a level reads zero.

    Under a mesh with a data or fsdp axis the batch is mapped by ``shard_map``, and with a tensor axis the heads: left
    to the partitioner, the loop over (sample, head) would gather the whole batch on each device.

    Args:
        values: [B, N, heads, C], the levels one after another, N = sum of h * w.
        locations: float32 [B, Q, heads, L, P, 2], (x, y) in 0..1 of each level's whole canvas. Keep them in float32.
        attention: [B, Q, heads, L, P] weights, already normalised.
        shapes_hw: static (h, w) of each level.
        form: one of FORMS; when None, by the platform of the mesh or else of the one that is traced for, and all of
            them inside ``ops.platforms.for_any_platform``.

    Returns:
        [B, Q, heads * C] in the dtype of ``values``.

    Raises:
        ValueError: unknown form.
    """
    if form is None:
        form = _form_for(traced_platform())
    elif form not in FORMS:
        raise ValueError(f"form of deformable attention {form!r} is none of {', '.join(FORMS)}")
    run = partial(_sample_local, shapes_hw=tuple((int(h), int(w)) for h, w in shapes_hw), form=form)
    axes, head_axis = sharded_axes(values.shape[0]), _head_axis(values.shape[2])
    if axes or head_axis:
        spec = PartitionSpec(axes, None, head_axis)
        run = jax.shard_map(run, in_specs=(spec, spec, spec), out_specs=spec, check_vma=False)
    return run(values, locations, attention)
