"""Looking back: each end of a beam is looked for again in wider views, where what the sentence speaks of is in sight.

In a wrong crop there is often something that looks right, and it scores as high there as the target does in the right
one. In a wider view around it the detector has to choose between it and its look-alikes. How far the best box that
holds the end is ahead of the best one that does not is evidence that no score of the path has.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from piza_jax.ops.boxes import area, inverse_sigmoid
from piza_jax.piza.boxes import box_in_photo, progress_of
from piza_jax.piza.path_score import LEAST_SCORE
from piza_jax.piza.paths import views_of
from piza_jax.piza.zoom import Normalise, ZoomModel, detect
from piza_jax.piza.zoom_config import ZoomConfig


def log_shares(
    model: ZoomModel,
    ends: jax.Array,
    photos: jax.Array,
    photo_hw: jax.Array,
    text: Any,
    config: ZoomConfig,
    normalise: Normalise,
) -> jax.Array:
    """Mean over the wider views of the logarithm of each end's share against the best box elsewhere.

    Args:
        model: the detector.
        ends: float32 [B, K, 4] last boxes of the paths, xyxy photo px.
        photos: uint8 [B, PH, PW, 3].
        photo_hw: int32 [B, 2].
        text: features of the sentences, rows [B * K].
        config: look_back holds the sides of the views over those of the photo.
        normalise: makes the detector's input of a view.

    Returns:
        float32 [B, K], below 0; the share is the odds of the best box with the end's centre in it over the sum of
        these and the odds of the best box without.
    """
    graphdef, state = nnx.split(model)
    batch, k = ends.shape[:2]
    rows, sizes = ends.reshape(-1, 4), jnp.repeat(photo_hw, k, axis=0)
    centre = 0.5 * (rows[:, :2] + rows[:, 2:])

    def look(total: jax.Array, side: jax.Array) -> tuple[jax.Array, None]:
        # A model closed over by scan must be a copy inside it, or its variables belong to the outer trace.
        inner = nnx.merge(graphdef, state, copy=True)
        crops, progress = wider(rows, sizes, side)
        view, valid_hw = views_of(photos, photo_hw, crops.reshape(batch, k, 4), config)
        logits, boxes = detect(inner, normalise(view, valid_hw), valid_hw, text, progress, config)
        scores = jax.nn.sigmoid(jnp.max(logits, axis=-1).astype(jnp.float32))  # [B * K, Q]
        queries = scores.shape[1]
        boxes = box_in_photo(
            boxes.reshape(-1, 4), jnp.repeat(crops, queries, axis=0), jnp.repeat(sizes, queries, axis=0)
        )
        boxes = boxes.reshape(-1, queries, 4)
        holds = jnp.all((boxes[..., :2] <= centre[:, None]) & (boxes[..., 2:] >= centre[:, None]), axis=-1)
        here, elsewhere = (jnp.max(jnp.where(which, scores, 0.0), axis=-1) for which in (holds, ~holds))
        ahead = inverse_sigmoid(here, LEAST_SCORE) - inverse_sigmoid(elsewhere, LEAST_SCORE)
        return total + jax.nn.log_sigmoid(ahead), None

    sides = jnp.array(config.look_back, jnp.float32)
    total, _ = jax.lax.scan(look, jnp.zeros(rows.shape[:1], jnp.float32), sides)
    return (total / len(config.look_back)).reshape(batch, k)


def wider(boxes: jax.Array, photo_hw: jax.Array, side: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Views around boxes, of the photo's shape and side times its size, moved into it; and the progress in them.

    Args:
        boxes: float32 [N, 4] xyxy photo px.
        photo_hw: int32 [N, 2].
        side: 0..1.

    Returns:
        Crops float32 [N, 4], and the logarithm of how much smaller they are than the photo over that of the boxes,
        [N], the share of the way that a search has gone when it sees them.
    """
    photo_wh = photo_hw[:, ::-1].astype(jnp.float32)
    half = 0.5 * side * photo_wh
    centre = jnp.clip(0.5 * (boxes[:, :2] + boxes[:, 2:]), half, photo_wh - half)
    photo_side, box_side = jnp.sqrt(photo_wh[:, 0] * photo_wh[:, 1]), jnp.sqrt(area(boxes))
    crops = jnp.concatenate([centre - half, centre + half], axis=1)
    return crops, progress_of(side * photo_side, box_side, photo_side)
