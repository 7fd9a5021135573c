"""Feature levels laid end to end: their shapes, masks, positions and reference points."""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from piza_jax.ops.encodings import image_encoding


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["mask", "position", "references", "valid_ratios", "valid_hw"],
    meta_fields=["shapes_hw"],
)
@dataclass(frozen=True)
class Pyramid:
    """Geometry of a batch of multi-level features; N is the number of cells of all levels."""

    mask: jax.Array  # bool [B, N], True = valid
    position: jax.Array  # float32 [B, N, D]
    references: jax.Array  # float32 [B, N, levels, 2], (x, y) in 0..1 of each level's canvas
    valid_ratios: jax.Array  # float32 [B, levels, 2], valid part of the canvas in x and y
    valid_hw: jax.Array  # int32 [B, levels, 2]
    shapes_hw: tuple[tuple[int, int], ...]


def _valid_cells(valid: jax.Array, canvas: int, cells: int) -> jax.Array:
    """Number of cells [B] whose nearest canvas pixel lies in the content (nearest-neighbour resizing of the mask)."""
    # In 64 bits on the host: canvas / cells is no exact binary fraction.
    source = np.minimum((np.arange(cells) * canvas) // cells, canvas - 1)
    return jnp.sum(jnp.asarray(source)[None] < valid[:, None], axis=1)


def build_pyramid(
    valid_hw: jax.Array,
    canvas_hw: tuple[int, int],
    shapes_hw: tuple[tuple[int, int], ...],
    level_embedding: jax.Array,
    temperature: float = 20.0,
) -> Pyramid:
    """Masks, positions and encoder references of feature levels.

    Args:
        valid_hw: int [B, 2] height and width of the image content on the canvas, in pixels.
        canvas_hw: static size of the canvas in pixels.
        shapes_hw: static size of each level.
        level_embedding: [levels, D], added to the positions.
        temperature: longest wavelength of the positions.
    """
    masks, positions, centres, counts, ratios = [], [], [], [], []
    for index, (h, w) in enumerate(shapes_hw):
        rows = _valid_cells(valid_hw[:, 0], canvas_hw[0], h)
        columns = _valid_cells(valid_hw[:, 1], canvas_hw[1], w)
        count = jnp.stack([rows, columns], axis=1)  # [B, 2]
        mask = (jnp.arange(h)[None, :, None] < rows[:, None, None]) & (
            jnp.arange(w)[None, None] < columns[:, None, None]
        )
        ratio = (count / jnp.array([h, w])).astype(jnp.float32)[:, ::-1]  # (x, y)
        position = image_encoding(count, (h, w), level_embedding.shape[1], temperature) + level_embedding[index]
        grid = jnp.stack(jnp.meshgrid(jnp.arange(w) + 0.5, jnp.arange(h) + 0.5), axis=-1).astype(jnp.float32)
        centre = grid.reshape(1, h * w, 2) / (ratio * jnp.array([w, h], jnp.float32))[:, None]
        masks.append(mask.reshape(-1, h * w))
        positions.append(position.reshape(-1, h * w, level_embedding.shape[1]))
        centres.append(centre)
        counts.append(count)
        ratios.append(ratio)
    valid_ratios = jnp.stack(ratios, axis=1)
    references = jnp.concatenate(centres, axis=1)[:, :, None] * valid_ratios[:, None]
    return Pyramid(
        mask=jnp.concatenate(masks, axis=1),
        position=jnp.concatenate(positions, axis=1),
        references=references,
        valid_ratios=valid_ratios,
        valid_hw=jnp.stack(counts, axis=1),
        shapes_hw=shapes_hw,
    )


def proposals(pyramid: Pyramid) -> tuple[jax.Array, jax.Array]:
    """Initial box of each cell for query selection (two-stage Deformable DETR).

    Returns:
        cxcywh [B, N, 4] in 0..1 of the valid content, side 0.05 doubled with each level, and a bool mask [B, N] of
        the cells that lie in the content and whose box stays between 0.01 and 0.99.
    """
    boxes, inside = [], []
    for index, (h, w) in enumerate(pyramid.shapes_hw):
        rows, columns = jnp.arange(h), jnp.arange(w)
        grid = jnp.stack(jnp.meshgrid(columns + 0.5, rows + 0.5), axis=-1).astype(jnp.float32)
        centre = grid.reshape(1, h * w, 2) / pyramid.valid_hw[:, index, None, ::-1]
        boxes.append(jnp.concatenate([centre, jnp.full_like(centre, 0.05 * 2.0**index)], axis=-1))
        counts = pyramid.valid_hw[:, index]  # [B, 2]
        across, down = _inner(columns, counts[:, 1:]), _inner(rows, counts[:, :1])
        inner = (down[:, :, None] & across[:, None]).reshape(-1, h * w)
        inside.append(inner if 0.05 * 2.0**index < 0.99 else jnp.zeros_like(inner))
    return jnp.concatenate(boxes, axis=1), jnp.concatenate(inside, axis=1) & pyramid.mask


def _inner(cells: jax.Array, count: jax.Array) -> jax.Array:
    """Whether 0.01 < (cell + 0.5) / count < 0.99, for cells [n] and counts [B, 1].

    In whole numbers: of 50 cells, which 800 pixels have at stride 16, the last one lies on the limit, and which side a
    rounded quotient falls on depends on how a compiler divides.
    """
    place = 100 * cells + 50
    return (place > count) & (place < 99 * count)
