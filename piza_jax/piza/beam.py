"""Beam zoom: several paths of boxes at once, so that a wrong first crop can be made good.

Every path of the beam has its own crop, history and progress. In each step every path looks at its crop and proposes
the ``beam`` best distinct boxes of it. Of all proposals of a photo, and of the paths that have ended, which propose
themselves, the ``beam`` best go on: by path score, and without boxes that overlap a better one's. The best path at the
end is the result. A photo and a sentence are read once, whatever the number of paths, and so is the whole photo looked
at, where all paths begin.

Backtracking: a view whose best score is below ``backtrack`` of the score of the box that led there has found nothing.
If the view before it has an untried box that scores higher than anything in this one, and a step is left, the path
proposes that view's untried boxes instead. They are looked at at least once, even if a reading says that they are
final. The look that found nothing stays among the steps of the path, with a stop probability of 0, but not in the
history or the path score.

With ``look_back`` the ends of the paths are looked for again in wider views before they are compared.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from piza_jax.ops.images import normalise
from piza_jax.piza.boxes import best_distinct_boxes, box_in_photo, distinct_boxes
from piza_jax.piza.look_back import log_shares
from piza_jax.piza.path_score import log_path_score, log_score
from piza_jax.piza.paths import Paths, View, as_rows, path_values, result_of, start_paths, take_paths, views_of
from piza_jax.piza.zoom import (
    Following,
    Normalise,
    ZoomModel,
    ZoomResult,
    ZoomStep,
    check_model,
    detect,
    follow,
    where_rows,
    whole_photo,
)
from piza_jax.piza.zoom_config import ZoomConfig


class _Choice(NamedTuple):
    """Which proposals go on; [B, K] each."""

    path: jax.Array  # int32, the place in the beam that it comes from
    rank: jax.Array  # int32, of the box in its view
    valid: jax.Array  # bool


def beam_zoom(
    model: ZoomModel,
    photos: jax.Array,
    photo_hw: jax.Array,
    text: Any,
    config: ZoomConfig,
    normalise: Normalise = normalise,
) -> ZoomResult:
    """Zoom along the config.beam best paths of each photo. To be run under jit; with one path it equals ``zoom``.

    Arguments, result and errors are those of ``zoom``. The steps and their number are those of the best path, looks
    that found nothing among them, and the result's ``beam`` holds the ends of all paths. The views of all paths
    of all photos are one batch [B * K] of the detector, but of the first step, whose view is one for all paths.
    """
    check_model(model, config)
    graphdef, state = nnx.split(model)
    k, n = config.beam, config.max_steps
    whole = whole_photo(photo_hw)
    start = start_paths(model, whole, config)
    wholes = jnp.repeat(whole, k, axis=0)

    passes, first = jnp.zeros(photo_hw.shape[:1], jnp.int32), 0
    if k > 1:
        # One row of a photo in place of K equal ones, for a detector that is compiled once more.
        one = jax.tree.map(lambda x: x[:, :1], start)
        view = _look(model, one, photos, photo_hw, text, config, normalise)
        start = _advance(model, start, jax.tree.map(lambda x: jnp.repeat(x, k, axis=1), view), wholes, config, 0)
        passes, first = passes + 1, 1
    text = jax.tree.map(lambda x: jnp.repeat(x, k, axis=0), text)

    def look(paths: Paths, t: jax.Array) -> Paths:
        # A model closed over by scan must be a copy inside it, or its variables belong to the outer trace.
        inner = nnx.merge(graphdef, state, copy=True)
        view = _look(inner, paths, photos, photo_hw, text, config, normalise)
        return _advance(inner, paths, view, wholes, config, t)

    def idle(paths: Paths, t: jax.Array) -> Paths:
        return _noted(paths._replace(looked=jnp.zeros_like(paths.looked)), t)

    def body(carry: tuple[Paths, jax.Array], t: jax.Array) -> tuple[tuple[Paths, jax.Array], None]:
        paths, passes = carry
        passes += jnp.sum(paths.active, axis=1, dtype=jnp.int32)
        return (jax.lax.cond(jnp.any(paths.active), look, idle, paths, t), passes), None

    (end, passes), _ = jax.lax.scan(body, (start, passes), jnp.arange(first, n))
    if not config.look_back or k == 1:
        return result_of(end, passes, config)
    evidence = log_shares(model, end.step.box, photos, photo_hw, text, config, normalise)
    passes += len(config.look_back) * jnp.sum(end.valid, axis=1, dtype=jnp.int32)
    return result_of(end, passes, config, evidence)


def _look(
    model: ZoomModel,
    paths: Paths,
    photos: jax.Array,
    photo_hw: jax.Array,
    text: Any,
    config: ZoomConfig,
    normalise: Normalise,
) -> View:
    """What the crops of all paths show."""
    batch, k, kept = paths.before.scores.shape
    views, valid_hw = views_of(photos, photo_hw, paths.crop, config)
    logits, boxes = detect(model, normalise(views, valid_hw), valid_hw, text, as_rows(paths.progress), config)
    view_wh = valid_hw[:, ::-1].astype(jnp.float32)
    best, scores = best_distinct_boxes(logits, boxes, view_wh, kept, config.nms_iou)
    crops, sizes = jnp.repeat(as_rows(paths.crop), kept, axis=0), jnp.repeat(photo_hw, k * kept, axis=0)
    in_photo = box_in_photo(best.reshape(-1, 4), crops, sizes).reshape(batch, k, kept, 4)
    scores = scores.reshape(batch, k, kept)
    return View(paths.crop, paths.progress, in_photo, scores, paths.length, paths.log_sum)


def _advance(
    model: ZoomModel, paths: Paths, view: View, wholes: jax.Array, config: ZoomConfig, t: jax.Array | int
) -> Paths:
    """The paths after step t, in which they saw the view."""
    failed = _failed(paths, view, config) & (t + 1 < config.max_steps)
    source = jax.tree.map(lambda old, new: where_rows(failed, old, new), paths.before, view)
    choice = _choose(paths, source, config)
    paths, view, source, failed = take_paths((paths, view, source, failed), choice.path)
    moved = paths.active & choice.valid
    after = _extend(model, paths, source, choice.rank, wholes, config)
    after = after._replace(
        step=_step(model, after.step, paths, view, failed, wholes, config),
        active=after.active | failed,
        before=source._replace(scores=_untried(source.scores, choice, moved)),
    )
    kept = paths._replace(active=jnp.zeros_like(moved), looked=jnp.zeros_like(moved))
    chosen = jax.tree.map(lambda new, old: where_rows(moved, new, old), after, kept)
    return _noted(chosen._replace(valid=choice.valid & paths.valid), t)


def _noted(paths: Paths, t: jax.Array | int) -> Paths:
    """The paths with their last step noted as step t."""
    steps = jax.tree.map(lambda all_steps, one: all_steps.at[:, :, t].set(one), paths.steps, paths.step)
    return paths._replace(steps=steps, taken=paths.taken.at[:, :, t].set(paths.looked))


def _failed(paths: Paths, view: View, config: ZoomConfig) -> jax.Array:
    """Whether to go back to the view before, bool [B, K]."""
    if config.backtrack == 0:
        return jnp.zeros_like(paths.active)
    best = view.scores[..., 0]
    poor = best < config.backtrack * paths.score
    return paths.active & poor & (jnp.max(paths.before.scores, axis=-1) > best)


def _choose(paths: Paths, source: View, config: ZoomConfig) -> _Choice:
    """The K best of what active paths propose, and of ended paths."""
    batch, k = paths.valid.shape
    scores, rank = jax.lax.top_k(source.scores, k)  # [B, K, K]
    boxes = jnp.take_along_axis(source.boxes, rank[..., None], axis=2)
    log_sum = source.log_sum[..., None] + log_score(scores)
    values = log_path_score(log_sum, scores, source.length[..., None] + 1, config)
    values = jnp.where(jnp.isneginf(scores), -jnp.inf, values)
    itself = jnp.where(jnp.arange(k) == 0, path_values(paths, config)[..., None], -jnp.inf)
    values = where_rows(paths.active, values, itself).reshape(batch, k * k)
    boxes = where_rows(paths.active, boxes, jnp.broadcast_to(paths.step.box[:, :, None], boxes.shape))
    index, there = distinct_boxes(values, boxes.reshape(batch, k * k, 4), k, config.nms_iou)
    return _Choice(index // k, jnp.take_along_axis(rank.reshape(batch, k * k), index, axis=1), there)


def _extend(
    model: ZoomModel, paths: Paths, source: View, rank: jax.Array, wholes: jax.Array, config: ZoomConfig
) -> Paths:
    """Every path with one box more, that of the rank [B, K] in its source; its step is as if just seen there."""
    box = jnp.take_along_axis(source.boxes, rank[..., None, None], axis=2)[:, :, 0]
    score = jnp.take_along_axis(source.scores, rank[..., None], axis=2)[:, :, 0]
    length = source.length + 1
    place = jnp.arange(paths.history.shape[2]) == length[..., None]  # [B, K, N + 1]
    history = jnp.where(place[..., None], box[:, :, None], paths.history)
    after = _follow(model, source, box, history, length, wholes, config)
    return paths._replace(
        active=~after.final,
        looked=jnp.ones_like(paths.looked),
        step=ZoomStep(source.crop, box, score, after.progress, after.stop_probability),
        crop=after.crop,
        progress=after.next_progress,
        history=history,
        length=length,
        log_sum=source.log_sum + log_score(score),
        score=score,
    )


def _follow(
    model: ZoomModel,
    view: View,
    box: jax.Array,
    history: jax.Array,
    length: jax.Array,
    wholes: jax.Array,
    config: ZoomConfig,
) -> Following:
    """As ``follow``, for boxes [B, K, 4] of each view."""
    crop, progress, box, history, last = map(as_rows, (view.crop, view.progress, box, history, length))
    after = follow(model, crop, progress, box, history, last, wholes, config)
    return jax.tree.map(lambda x: x.reshape(*length.shape, *x.shape[1:]), after)


def _step(
    model: ZoomModel,
    step: ZoomStep,
    paths: Paths,
    view: View,
    failed: jax.Array,
    wholes: jax.Array,
    config: ZoomConfig,
) -> ZoomStep:
    """The steps [B, K], but of looks that found nothing what they saw."""
    if config.backtrack == 0:
        return step
    best = view.boxes[:, :, 0]
    progress = _follow(model, view, best, paths.history, paths.length, wholes, config).progress
    nothing = ZoomStep(view.crop, best, view.scores[..., 0], progress, jnp.zeros_like(progress))
    return jax.tree.map(lambda new, old: where_rows(failed, new, old), nothing, step)


def _untried(scores: jax.Array, choice: _Choice, moved: jax.Array) -> jax.Array:
    """Scores [B, K, P] of the boxes that each path may come back to; -inf for all others.

    Paths that go on from one view share out its untried boxes, best first and in turn, so that no two try the same.
    """
    k, kept = scores.shape[1:]
    together = (choice.path[:, :, None] == choice.path[:, None]) & moved[:, None]  # [B, K, K]
    on_path = choice.rank[..., None] == jnp.arange(kept)  # [B, K, P]
    tried = jnp.any(together[..., None] & on_path[:, None], axis=2)
    untried = ~tried & ~jnp.isneginf(scores)
    turn = jnp.cumsum(untried, axis=-1) - 1
    sharing = jnp.maximum(jnp.sum(together, axis=-1), 1)[..., None]
    own = jnp.sum(together & (jnp.arange(k)[:, None] > jnp.arange(k)), axis=-1)[..., None]
    return jnp.where(untried & (turn % sharing == own), scores, -jnp.inf)
