"""Box conversions and overlaps. The last axis holds the four numbers; every function broadcasts over the rest."""

import jax
import jax.numpy as jnp


def cxcywh_to_xyxy(boxes: jax.Array) -> jax.Array:
    """Centre and size [..., 4] -> corners [..., 4], in the same units."""
    centre, half = boxes[..., :2], 0.5 * boxes[..., 2:]
    return jnp.concatenate([centre - half, centre + half], axis=-1)


def xyxy_to_cxcywh(boxes: jax.Array) -> jax.Array:
    """Corners [..., 4] -> centre and size [..., 4], in the same units."""
    low, high = boxes[..., :2], boxes[..., 2:]
    return jnp.concatenate([0.5 * (low + high), high - low], axis=-1)


def at_least(boxes_cxcywh: jax.Array, sides: jax.Array) -> jax.Array:
    """Boxes [..., 4] grown about their centres to at least the sides [..., 2], width and height."""
    return jnp.concatenate([boxes_cxcywh[..., :2], jnp.maximum(boxes_cxcywh[..., 2:], sides)], axis=-1)


def area(boxes_xyxy: jax.Array) -> jax.Array:
    """Area [...] of corner boxes [..., 4]."""
    return (boxes_xyxy[..., 2] - boxes_xyxy[..., 0]) * (boxes_xyxy[..., 3] - boxes_xyxy[..., 1])


def iou_and_giou(a_xyxy: jax.Array, b_xyxy: jax.Array, eps: float = 1e-7) -> tuple[jax.Array, jax.Array]:
    """Intersection over union and its generalised form (Rezatofighi et al. 2019, eq. 3), pairwise by broadcasting.

    Args:
        a_xyxy: [..., 4] corners in any unit much larger than ``eps`` squared (use pixels).
        b_xyxy: [..., 4] corners in the same unit.
        eps: lower bound of the two denominators.

    Returns:
        IoU in 0..1 and GIoU in -1..1, both of the broadcast shape [...].
    """
    low = jnp.maximum(a_xyxy[..., :2], b_xyxy[..., :2])
    high = jnp.minimum(a_xyxy[..., 2:], b_xyxy[..., 2:])
    overlap = jnp.prod(jnp.maximum(high - low, 0.0), axis=-1)
    union = jnp.maximum(area(a_xyxy) + area(b_xyxy) - overlap, eps)
    iou = overlap / union
    hull_low = jnp.minimum(a_xyxy[..., :2], b_xyxy[..., :2])
    hull_high = jnp.maximum(a_xyxy[..., 2:], b_xyxy[..., 2:])
    hull = jnp.maximum(jnp.prod(jnp.maximum(hull_high - hull_low, 0.0), axis=-1), eps)
    return iou, iou - (hull - union) / hull


def inverse_sigmoid(x: jax.Array, eps: float = 1e-5) -> jax.Array:
    """Logit of values in 0..1, bounded by clamping both sides of the odds at ``eps``."""
    x = jnp.clip(x, 0.0, 1.0)
    return jnp.log(jnp.maximum(x, eps) / jnp.maximum(1.0 - x, eps))
