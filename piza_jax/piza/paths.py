"""The paths of a beam: what each place of it holds, how it starts, and what it comes to."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from piza_jax.ops.crop import crop_resize
from piza_jax.piza.learnt import path_features
from piza_jax.piza.path_score import log_end_score, log_path_score
from piza_jax.piza.zoom import ZoomModel, ZoomStep, read
from piza_jax.piza.zoom_config import ZoomConfig
from piza_jax.results import Beam, ZoomResult


class View(NamedTuple):
    """Distinct boxes of one crop, P of each path, and the path that leads to it; leading axes [B, K]."""

    crop: jax.Array  # [B, K, 4]
    progress: jax.Array  # [B, K]
    boxes: jax.Array  # [B, K, P, 4], best first
    scores: jax.Array  # [B, K, P], -inf: no box, or tried
    length: jax.Array  # int32 [B, K], boxes of the path before this view
    log_sum: jax.Array  # [B, K], of their scores


class Paths(NamedTuple):
    """All paths; leading axes [B, K]."""

    valid: jax.Array  # bool, False: an empty place of the beam
    active: jax.Array  # bool, not finished yet
    looked: jax.Array  # bool, in this step
    step: ZoomStep  # the last one
    crop: jax.Array  # where to look next
    progress: jax.Array  # of that crop
    history: jax.Array  # [B, K, N + 1, 4]
    length: jax.Array  # int32, boxes on the path after the whole photo
    log_sum: jax.Array  # of their scores
    score: jax.Array  # of the last one
    before: View  # the view that it was found in
    steps: ZoomStep  # [B, K, N, ...]
    taken: jax.Array  # bool [B, K, N], steps in which the path looked


def start_paths(model: ZoomModel, whole: jax.Array, config: ZoomConfig) -> Paths:
    """One path at the whole photo, and empty places."""
    batch, k, n = whole.shape[0], config.beam, config.max_steps
    kept = k if config.backtrack == 0 else k * n
    history = jnp.zeros((batch, n + 1, 4), jnp.float32).at[:, 0].set(whole)
    progress = read(model, history, 0).progress if config.mode == "piza" else jnp.zeros((batch,), jnp.float32)
    crop, history, progress = (jnp.repeat(x[:, None], k, axis=1) for x in (whole, history, progress))
    first = jnp.broadcast_to(jnp.arange(k) == 0, (batch, k))
    zeros, none = jnp.zeros((batch, k), jnp.float32), jnp.zeros((batch, k), jnp.int32)
    step = ZoomStep(crop, crop, zeros, zeros, zeros)
    no_boxes = jnp.zeros((batch, k, kept, 4), jnp.float32)
    return Paths(
        valid=first,
        active=first,
        looked=jnp.zeros_like(first),
        step=step,
        crop=crop,
        progress=progress,
        history=history,
        length=none,
        log_sum=zeros,
        score=zeros,
        before=View(crop, zeros, no_boxes, jnp.full((batch, k, kept), -jnp.inf), none, zeros),
        steps=jax.tree.map(lambda x: jnp.repeat(x[:, :, None], n, axis=2), step),
        taken=jnp.zeros((batch, k, n), bool),
    )


def path_values(paths: Paths, config: ZoomConfig) -> jax.Array:
    """Logarithms of the path scores of paths on their way [B, K], -inf in empty places."""
    values = log_path_score(paths.log_sum, paths.score, jnp.maximum(paths.length, 1), config)
    return jnp.where(paths.valid, values, -jnp.inf)


def result_of(end: Paths, passes: jax.Array, config: ZoomConfig, evidence: jax.Array | None = None) -> ZoomResult:
    """The best path as the result of the zoom, with the ends of all.

    Args:
        end: the paths at their ends.
        passes: int32 [B], views that all paths saw.
        config: how they are compared.
        evidence: float32 [B, K] of ``look_back.log_shares``, if they were looked for again.
    """
    features = path_features(end.steps, end.taken)
    ends = log_end_score(path_values(end, config), features, config)
    if evidence is not None:
        ends += config.look_back_weight * evidence
    values, order = jax.lax.top_k(jnp.where(end.valid, ends, -jnp.inf), config.beam)
    paths, features = take_paths((end, features), order)
    path_scores = jnp.exp(values)
    best: Paths = jax.tree.map(lambda x: x[:, 0], paths)
    return ZoomResult(
        box=best.step.box,
        score=best.step.score,
        num_steps=jnp.sum(best.taken, axis=1, dtype=jnp.int32),
        crops=best.steps.crop,
        boxes=best.steps.box,
        scores=best.steps.score,
        progress=best.steps.progress,
        stop_probability=best.steps.stop_probability,
        active=best.taken,
        path_score=path_scores[:, 0],
        no_target=path_scores[:, 0] < config.no_target_threshold,
        beam=Beam(
            boxes=paths.step.box,
            scores=jnp.where(paths.valid, paths.step.score, 0.0),
            path_scores=path_scores,
            valid=paths.valid,
            passes=passes,
            features=features,
        ),
    )


def take_paths(tree: Any, path: jax.Array) -> Any:
    """Every [B, K, ...] of the tree with its second axis in the order of path [B, K]."""
    return jax.tree.map(lambda x: jax.vmap(lambda rows, index: rows[index])(x, path), tree)


def as_rows(x: jax.Array) -> jax.Array:
    """[B, K, ...] -> [B * K, ...], the batch of the model."""
    return x.reshape(-1, *x.shape[2:])


def views_of(
    photos: jax.Array, photo_hw: jax.Array, crops: jax.Array, config: ZoomConfig
) -> tuple[jax.Array, jax.Array]:
    """Crops [B, K, 4] of photos [B, PH, PW, 3] on the canvas, as ``ops.crop.crop_resize`` cuts them; rows [B * K]."""

    def cut(boxes: jax.Array) -> tuple[jax.Array, jax.Array]:
        return crop_resize(photos, photo_hw, boxes, config.canvas_hw, config.crop_method)

    # Mapped over the paths, for repeating the photos would cost their memory once for each path.
    views, valid_hw = jax.lax.map(cut, jnp.swapaxes(crops, 0, 1))
    return as_rows(jnp.swapaxes(views, 0, 1)), as_rows(jnp.swapaxes(valid_hw, 0, 1))
