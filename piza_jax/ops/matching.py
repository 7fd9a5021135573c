"""Assignment of predictions to targets (DETR's bipartite matching), with static shapes."""

import jax
import jax.numpy as jnp
import optax.assignment

from piza_jax.ops.boxes import cxcywh_to_xyxy, iou_and_giou


def matching_cost(
    logits: jax.Array,
    boxes_cxcywh: jax.Array,
    positive: jax.Array,
    token_mask: jax.Array,
    target_cxcywh: jax.Array,
    scale_wh: jax.Array,
    *,
    focal_weight: float = 2.0,
    l1_weight: float = 5.0,
    giou_weight: float = 2.0,
    alpha: float = 0.25,
) -> jax.Array:
    """Cost of giving each query to each target of one sample.

    Args:
        logits: [Q, L] token logits; padding tokens may hold -inf.
        boxes_cxcywh: [Q, 4] in 0..1.
        positive: [G, L] 1 where a token names the target.
        token_mask: bool [L], True = token.
        target_cxcywh: [G, 4] in 0..1.
        scale_wh: [2] width and height in pixels, so that the overlap is measured in pixels.

    Returns:
        float32 [Q, G].
    """
    probability = jax.nn.sigmoid(jnp.where(token_mask, logits, 0.0))
    negative_cost = -jnp.log(1.0 - probability + 1e-12) * (1.0 - alpha) * probability**2
    positive_cost = -jnp.log(probability + 1e-12) * alpha * (1.0 - probability) ** 2
    positive = jnp.where(token_mask, positive, 0.0)
    absent = jnp.where(token_mask, 1.0 - positive, 0.0)
    highest = jax.lax.Precision.HIGHEST
    focal = jnp.matmul(positive_cost, positive.T, precision=highest)
    focal += jnp.matmul(negative_cost, absent.T, precision=highest)  # [Q, G]
    l1 = jnp.sum(jnp.abs(boxes_cxcywh[:, None] - target_cxcywh[None]), axis=-1)
    scale = jnp.tile(scale_wh, 2)
    _, giou = iou_and_giou(
        (cxcywh_to_xyxy(boxes_cxcywh) * scale)[:, None], (cxcywh_to_xyxy(target_cxcywh) * scale)[None]
    )
    return focal_weight * focal + l1_weight * l1 - giou_weight * giou


def aimed_cost(boxes_cxcywh: jax.Array, target_cxcywh: jax.Array, aim_cxcywh: jax.Array) -> jax.Array:
    """Cost of giving each query to each target by where its centre lies, whatever its size.

    A detector that was trained on things puts its queries on them; when it learns to zoom, their boxes grow to zoom
    boxes. The query on the thing that is looked for is known by that thing at the start, and at the end by the zoom
    box, whose centre is another one near a photo's edge.

    Args:
        boxes_cxcywh: [Q, 4] in 0..1.
        target_cxcywh: [G, 4], the boxes that are asked for.
        aim_cxcywh: [G, 4], the things that they are zoomed to.

    Returns:
        float32 [Q, G], L1 distance to the nearer of the two centres.
    """
    away = [jnp.abs(boxes_cxcywh[:, None, :2] - box[None, :, :2]).sum(axis=-1) for box in (target_cxcywh, aim_cxcywh)]
    return jnp.minimum(*away)


def match(cost: jax.Array, target_valid: jax.Array) -> jax.Array:
    """Query index int32 [G] of each target, at the lowest total cost.

    One target is an argmin, equal to the Hungarian algorithm and ten times faster. Targets that are not valid get
    some query of their own: mask them afterwards.

    Args:
        cost: [Q, G].
        target_valid: bool [G], True = valid.
    """
    if cost.shape[1] == 1:
        return jnp.argmin(cost, axis=0).astype(jnp.int32)
    # An invalid target costs the same everywhere, so it takes a query that no valid one wants.
    cost = jnp.where(target_valid[None], jnp.nan_to_num(cost, nan=1e6, posinf=1e6, neginf=-1e6), 0.0)
    queries, targets = optax.assignment.hungarian_algorithm(cost)
    return jnp.zeros(cost.shape[1], jnp.int32).at[targets].set(queries.astype(jnp.int32))
