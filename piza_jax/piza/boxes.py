"""From a detector's output to one box in the photo."""

import jax
import jax.numpy as jnp

from piza_jax.ops.boxes import cxcywh_to_xyxy, iou_and_giou

# Sides of boxes never get below this, so that areas and their logarithms exist.
LEAST_BOX_PX = 1.0


def best_box(logits: jax.Array, boxes_cxcywh: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The query whose best token scores highest.

    Args:
        logits: [B, Q, L], -inf on padding tokens.
        boxes_cxcywh: [B, Q, 4].

    Returns:
        Its box [B, 4] and its score [B], the sigmoid of that logit.
    """
    best = jnp.max(logits, axis=-1)  # [B, Q]
    index = jnp.argmax(best, axis=-1)[:, None]
    box = jnp.take_along_axis(boxes_cxcywh, index[..., None], axis=1)[:, 0]
    return box, jax.nn.sigmoid(jnp.take_along_axis(best, index, axis=1)[:, 0].astype(jnp.float32))


def distinct_boxes(
    values: jax.Array, boxes_xyxy: jax.Array, count: int, most_iou: float
) -> tuple[jax.Array, jax.Array]:
    """The boxes of the highest values, best first, without those that overlap a better one.

    Args:
        values: [B, Q], -inf where there is no box.
        boxes_xyxy: float32 [B, Q, 4] in any unit much larger than 1e-3.
        count: how many, K; static.
        most_iou: overlap from which on, itself excluded, two boxes are one place.

    Returns:
        Their indices int32 [B, K], and whether there was such a box, bool [B, K]. The first always counts as one.
    """

    def pick(left: jax.Array, _: None) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        index = jnp.argmax(left, axis=1)[:, None]  # [B, 1]
        there = ~jnp.isneginf(jnp.take_along_axis(left, index, axis=1)[:, 0])
        overlap = iou_and_giou(jnp.take_along_axis(boxes_xyxy, index[..., None], axis=1), boxes_xyxy)[0]
        taken = (overlap > most_iou) | (jnp.arange(left.shape[1]) == index)
        return jnp.where(taken, -jnp.inf, left), (index[:, 0].astype(jnp.int32), there)

    _, (indices, there) = jax.lax.scan(pick, values, None, length=count)
    return indices.T, there.T.at[:, 0].set(True)


def best_distinct_boxes(
    logits: jax.Array, boxes_cxcywh: jax.Array, view_wh: jax.Array, count: int, most_iou: float
) -> tuple[jax.Array, jax.Array]:
    """As ``best_box``, but the K best boxes that do not overlap each other; the first is that of ``best_box``.

    Args:
        logits: [B, Q, L], -inf on padding tokens.
        boxes_cxcywh: float32 [B, Q, 4] in 0..1 of the view.
        view_wh: float32 [B, 2] width and height of the view in pixels.
        count: K; static.
        most_iou: see ``distinct_boxes``.

    Returns:
        Boxes [B, K, 4] and scores float32 [B, K], best first; -inf where there are no more boxes.
    """
    best = jnp.max(logits, axis=-1)  # [B, Q]
    in_view = cxcywh_to_xyxy(boxes_cxcywh) * jnp.tile(view_wh, (1, 2))[:, None]
    index, there = distinct_boxes(best, in_view, count, most_iou)
    scores = jax.nn.sigmoid(jnp.take_along_axis(best, index, axis=1).astype(jnp.float32))
    return jnp.take_along_axis(boxes_cxcywh, index[..., None], axis=1), jnp.where(there, scores, -jnp.inf)


def box_in_photo(box_cxcywh: jax.Array, crop_xyxy: jax.Array, photo_hw: jax.Array) -> jax.Array:
    """Boxes [B, 4] in 0..1 of a crop [B, 4] -> xyxy photo px [B, 4], cut to the crop, no side below a pixel."""
    corners = jnp.clip(cxcywh_to_xyxy(box_cxcywh), 0.0, 1.0).reshape(-1, 2, 2)
    low, high = crop_xyxy[:, None, :2], crop_xyxy[:, None, 2:]
    in_photo = jnp.clip(low + corners * (high - low), low, high).reshape(-1, 4)
    return widen(in_photo, LEAST_BOX_PX, photo_hw[:, ::-1].astype(jnp.float32))


def square(centre: jax.Array, side: jax.Array, photo_wh: jax.Array) -> jax.Array:
    """Box [B, 4] of the given side [B, 1 or 2] (cut to the photo's own) nearest to centre [B, 2] inside the photo."""
    size = jnp.minimum(side, photo_wh)
    low = jnp.clip(centre - 0.5 * size, 0.0, photo_wh - size)
    return jnp.concatenate([low, jnp.minimum(low + size, photo_wh)], axis=1)


def widen(box: jax.Array, least: float, photo_wh: jax.Array) -> jax.Array:
    """Box [B, 4] with each side of at least ``least`` px (or the photo's), inside the photo; wide ones as they are."""
    size = box[:, 2:] - box[:, :2]
    wider = square(0.5 * (box[:, :2] + box[:, 2:]), jnp.maximum(size, least), photo_wh)
    return jnp.where(jnp.tile(size >= jnp.minimum(least, photo_wh), (1, 2)), box, wider)


def progress_of(crop_side: jax.Array, box_side: jax.Array, photo_side: jax.Array) -> jax.Array:
    """How far crops are on the way from the photo to a box, 0..1, in logarithms of the sides, all of one shape."""
    way = jnp.log(photo_side / jnp.minimum(box_side, 0.999 * photo_side))
    return jnp.clip(jnp.log(photo_side / crop_side) / way, 0.0, 1.0)
