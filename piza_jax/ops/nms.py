"""Duplicate boxes: greedy non-maximum suppression and merging with static shapes."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from piza_jax.ops.boxes import area

METRICS = ("iou", "ios")


class Kept(NamedTuple):
    """Boxes that were kept, best first; entries that are not valid are zero."""

    boxes: jax.Array  # [K, 4], as given or, where merged, the hull of the box and of those it matched
    scores: jax.Array  # [K]
    source: jax.Array  # int32 [K], place among the boxes given
    valid: jax.Array  # bool [K]


def matching(a_xyxy: jax.Array, b_xyxy: jax.Array, metric: str = "iou") -> jax.Array:
    """Overlap 0..1 of boxes [..., 4] and [..., 4], by broadcasting; 0 where either has no area.

    "iou" divides the intersection by the union, "ios" by the smaller of the two areas, so that a box which was cut at
    the edge of a slice matches the whole one.

    Raises:
        ValueError: unknown metric.
    """
    if metric not in METRICS:
        raise ValueError(f"match metric {metric!r} is none of {', '.join(METRICS)}")
    low = jnp.maximum(a_xyxy[..., :2], b_xyxy[..., :2])
    high = jnp.minimum(a_xyxy[..., 2:], b_xyxy[..., 2:])
    shared = jnp.prod(jnp.maximum(high - low, 0.0), axis=-1)
    areas = area(a_xyxy), area(b_xyxy)
    whole = areas[0] + areas[1] - shared if metric == "iou" else jnp.minimum(*areas)
    return jnp.where(shared > 0, shared / jnp.where(shared > 0, whole, 1.0), 0.0)


def keep_best(
    boxes_xyxy: jax.Array,
    scores: jax.Array,
    valid: jax.Array,
    limit: int,
    *,
    threshold: float = 0.5,
    metric: str = "iou",
    merge: bool = False,
) -> Kept:
    """Take the best box, drop all that match it, take the best of the rest, and so on.

    Args:
        boxes_xyxy: float32 [N, 4].
        scores: float32 [N]; of equal ones the first wins.
        valid: bool [N], boxes that take part.
        limit: static, most boxes to keep, K.
        threshold: boxes match from this overlap on.
        metric: see matching.
        merge: each box kept grows to the hull of those it matched, as in SAHI's greedy non-maximum merging; its score
            stays.

    Raises:
        ValueError: unknown metric.
    """

    boxes_xyxy, scores, valid = map(jnp.asarray, (boxes_xyxy, scores, valid))

    def pick(left: jax.Array, _: None) -> tuple[jax.Array, Kept]:
        best = jnp.argmax(jnp.where(left, scores, -jnp.inf)).astype(jnp.int32)
        found = left[best]
        dropped = left & (matching(boxes_xyxy[best], boxes_xyxy, metric) >= threshold)
        dropped = dropped.at[best].set(found)
        box = boxes_xyxy[best]
        if merge:
            low = jnp.min(jnp.where(dropped[:, None], boxes_xyxy[:, :2], jnp.inf), axis=0)
            high = jnp.max(jnp.where(dropped[:, None], boxes_xyxy[:, 2:], -jnp.inf), axis=0)
            box = jnp.concatenate([low, high])
        kept = Kept(jnp.where(found, box, 0), jnp.where(found, scores[best], 0), jnp.where(found, best, 0), found)
        return left & ~dropped, kept

    return jax.lax.scan(pick, valid, None, length=limit)[1]
