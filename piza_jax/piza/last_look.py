"""A last look: the box that a search ended on, seen once more from the middle of a view of its own size.

A search's last crop was drawn where the target seemed to be from farther away, and as large as it seemed: the target
lies off its middle, and it is the wider for a margin. One more view, with the box just found in its middle and of a
size that goes with the box's, places the box more precisely. It never moves to another thing: only boxes that overlap
the one found count, and without one that stays.
"""

import jax
import jax.numpy as jnp

from piza_jax.ops.boxes import area, iou_and_giou
from piza_jax.piza.boxes import box_in_photo, progress_of, square
from piza_jax.piza.zoom_config import ZoomConfig

LEAST_IOU = 0.5  # from which on a box is taken to be of the same thing


def view_around(box: jax.Array, photo_hw: jax.Array, config: ZoomConfig) -> tuple[jax.Array, jax.Array]:
    """Squares around boxes [B, 4] xyxy photo px, config.last_look times as large as their longest sides.

    Args:
        box: float32 [B, 4].
        photo_hw: int32 [B, 2].
        config: holds the least side, too.

    Returns:
        Crops float32 [B, 4], inside the photo, and [B], how far crops of that size are on the way to the box.
    """
    photo_wh = photo_hw[:, ::-1].astype(jnp.float32)
    longest = jnp.max(box[:, 2:] - box[:, :2], axis=1, keepdims=True)
    crop = square(
        0.5 * (box[:, :2] + box[:, 2:]), jnp.maximum(config.last_look * longest, config.min_crop_px), photo_wh
    )
    return crop, progress_of(*(jnp.sqrt(one) for one in (area(crop), area(box), jnp.prod(photo_wh, axis=1))))


def same_thing(boxes_cxcywh: jax.Array, crop: jax.Array, photo_hw: jax.Array, box: jax.Array) -> jax.Array:
    """Which boxes [B, Q, 4] of views [B, 4] overlap boxes [B, 4] xyxy photo px enough, bool [B, Q]."""
    batch, queries = boxes_cxcywh.shape[:2]
    rows = (jnp.repeat(crop, queries, axis=0), jnp.repeat(photo_hw, queries, axis=0))
    in_photo = box_in_photo(boxes_cxcywh.reshape(-1, 4), *rows).reshape(batch, queries, 4)
    return iou_and_giou(box[:, None], in_photo)[0] >= LEAST_IOU
