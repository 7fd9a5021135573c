"""The zoom loop: a photo, an expression and a detector become a tight box in a few crops, for a whole batch at once.

PIZA (mode "piza") reads the history of its boxes before each crop: the reading says how far the zoom has come, which
conditions the detector, and whether to stop. The next crop is the box just found, with a margin if so configured.

A detector without PIZA weights (mode "training_free") zooms by a fixed rule. Its best box is where to look, not where
to crop: the next crop is a square around the box's centre whose side lies, in logarithms, ``step_progress`` of the way
from the crop's side to the box's (0.4, the way of the released model's own first crops), so that the context which the
sentence speaks of stays in view, and never so small that the box fills more than 1 / ``context`` of it. It stops when
the box is tight, its side at least ``tight`` of the crop's, or when the next crop would hardly be smaller.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from flax import nnx

from piza_jax.errors import PizaError
from piza_jax.ops.boxes import area
from piza_jax.ops.crop import crop_resize
from piza_jax.ops.images import normalise
from piza_jax.piza.boxes import best_box, box_in_photo, progress_of, square, widen
from piza_jax.piza.last_look import same_thing, view_around
from piza_jax.piza.learnt import path_features
from piza_jax.piza.path_score import log_end_score, log_path_score, log_score
from piza_jax.piza.zoom_config import ZoomConfig, changed, zoom_config_of
from piza_jax.results import ZoomResult

__all__ = ["Normalise", "ZoomConfig", "ZoomModel", "ZoomResult", "changed", "zoom", "zoom_config_of"]

# A training-free crop that would keep more than this part of the side of the one before it is not worth a step.
_LEAST_SHRINK = 0.9

# View uint8 [B, H, W, 3] and its valid_hw int32 [B, 2] -> float32 [B, H, W, 3], zero outside the content.
Normalise = Callable[[jax.Array, jax.Array], jax.Array]


class ZoomModel(Protocol):
    """What the loop asks of a model; ``piza.detector.PizaDetector`` is one. It must be an nnx.Module."""

    def encode_text(self, input_ids: jax.Array, token_mask: jax.Array) -> Any:
        """Token ids int [B, L] and mask bool [B, L] -> text features; run once for each expression."""

    def read_history(self, boxes_xyxy: jax.Array, mask: jax.Array) -> Any:
        """Boxes float32 [B, S, 4] and mask bool [B, S] -> .stop_probability [B], .progress [B]; mode "piza" only."""

    def detect(self, images: jax.Array, valid_hw: jax.Array, text: Any, progress: jax.Array | None) -> Any:
        """Normalised images -> .logits [layers, B, Q, L] and .boxes [layers, B, Q, 4] cxcywh of the valid content.

        It rounds the progress itself, as in training.
        """


class ZoomStep(NamedTuple):
    """One step of each zoom, float32 [..., 4] or [...]; see ZoomResult."""

    crop: jax.Array
    box: jax.Array
    score: jax.Array
    progress: jax.Array
    stop_probability: jax.Array


class Following(NamedTuple):
    """What follows from a box: float32 [B, 4] and [B], bool [B]."""

    crop: jax.Array  # where to look next
    next_progress: jax.Array  # of that crop
    progress: jax.Array  # of the crop in which the box was found, to report
    stop_probability: jax.Array
    final: jax.Array


class _Carry(NamedTuple):
    step: ZoomStep  # the last active step of each sample, to keep for finished ones
    crop: jax.Array  # [B, 4], where to look next
    progress: jax.Array  # [B], of that crop
    history: jax.Array  # [B, N + 1, 4]
    active: jax.Array  # bool [B], not finished yet
    closing: jax.Array  # bool [B], the zoom has ended and the next look is the last


def zoom(
    model: ZoomModel,
    photos: jax.Array,
    photo_hw: jax.Array,
    text: Any,
    config: ZoomConfig,
    normalise: Normalise = normalise,
) -> ZoomResult:
    """Zoom into each photo until its box is final, at most config.max_steps times. To be run under jit.

    One scan over the steps; a step in which no sample of the batch is active costs nothing. A sample's result does not
    depend on the others. With config.last_look there is one step more, which the path score leaves out.

    Args:
        model: the detector, see ZoomModel.
        photos: uint8 [B, PH, PW, 3] RGB, each in the top left corner.
        photo_hw: int32 [B, 2], height and width of each.
        text: features of the expressions, from the model's ``encode_text``; computed once for all steps.
        config: how to zoom.
        normalise: makes the detector's input of a view, see ``ops.images.normalise``.

    Raises:
        PizaError: mode "piza" with a model that has no history network; a beam or backtracking.
    """
    check_model(model, config)
    if not config.one_path:
        raise PizaError("zoom() follows one path and never turns back; call piza.beam.beam_zoom()")
    graphdef, state = nnx.split(model)
    batch, n = photos.shape[0], config.max_steps
    whole = whole_photo(photo_hw)  # b_0
    history = jnp.zeros((batch, n + 1, 4), jnp.float32).at[:, 0].set(whole)
    zeros = jnp.zeros((batch,), jnp.float32)
    start = _Carry(
        step=ZoomStep(whole, whole, zeros, zeros, zeros),
        crop=whole,
        progress=read(model, history, 0).progress if config.mode == "piza" else zeros,
        history=history,
        active=jnp.ones((batch,), bool),
        closing=jnp.zeros((batch,), bool),
    )

    def look(carry: _Carry, t: jax.Array) -> _Carry:
        # A model closed over by scan must be a copy inside it, or its variables belong to the outer trace.
        inner = nnx.merge(graphdef, state, copy=True)
        view, valid_hw = crop_resize(photos, photo_hw, carry.crop, config.canvas_hw, config.crop_method)
        logits, boxes = detect(inner, normalise(view, valid_hw), valid_hw, text, carry.progress, config)
        best, score = best_box(logits, boxes)
        box = box_in_photo(best, carry.crop, photo_hw)
        history = carry.history.at[:, t + 1].set(box)
        after = follow(inner, carry.crop, carry.progress, box, history, t + 1, whole, config)
        found = ZoomStep(carry.crop, box, score, after.progress, after.stop_probability)
        following = _Carry(found, after.crop, after.next_progress, history, ~after.final, carry.closing)
        if config.last_look:
            ending = after.final | (t + 1 == n)
            following = _closing(following, carry, ending, logits, boxes, photo_hw, config)
        kept = carry._replace(active=jnp.zeros_like(carry.active))
        return jax.tree.map(lambda new, old: where_rows(carry.active, new, old), following, kept)

    def body(carry: _Carry, t: jax.Array) -> tuple[_Carry, tuple[ZoomStep, jax.Array, jax.Array]]:
        following = jax.lax.cond(jnp.any(carry.active), look, lambda same, _: same, carry, t)
        return following, (following.step, carry.active, carry.active & ~carry.closing)

    end, outputs = jax.lax.scan(body, start, jnp.arange(n + (config.last_look > 0)))
    steps, active, on_path = jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), outputs)  # [B, N, ...]
    num_steps, length = (jnp.sum(taken, axis=1, dtype=jnp.int32) for taken in (active, on_path))
    path = _until(steps, length) if config.last_look else steps
    log_sum = jnp.sum(jnp.where(on_path, log_score(path.score), 0.0), axis=1)
    log_end = log_path_score(log_sum, path.score[:, -1], length, config)
    path_score = jnp.exp(log_end_score(log_end, path_features(path, on_path), config))
    return ZoomResult(
        box=end.step.box,
        score=end.step.score,
        num_steps=num_steps,
        crops=steps.crop,
        boxes=steps.box,
        scores=steps.score,
        progress=steps.progress,
        stop_probability=steps.stop_probability,
        active=active,
        path_score=path_score,
        no_target=path_score < config.no_target_threshold,
    )


def _closing(
    following: _Carry,
    carry: _Carry,
    ending: jax.Array,
    logits: jax.Array,
    boxes: jax.Array,
    photo_hw: jax.Array,
    config: ZoomConfig,
) -> _Carry:
    """What follows where zooms end now, bool [B], and go on to a last look, and where this look was the last."""
    crop, progress = view_around(following.step.box, photo_hw, config)
    closing = ending & ~carry.closing
    step = held_step(carry.step.box, carry.step.score, carry.crop, carry.progress, logits, boxes, photo_hw)
    return following._replace(
        step=jax.tree.map(lambda new, old: where_rows(carry.closing, new, old), step, following.step),
        crop=where_rows(closing, crop, following.crop),
        progress=where_rows(closing, progress, following.progress),
        active=~carry.closing,
        closing=closing,
    )


def _until(steps: ZoomStep, length: jax.Array) -> ZoomStep:
    """Steps [B, N, ...], of which those after the first ``length`` [B] repeat the last of these."""
    place = jnp.minimum(jnp.arange(steps.score.shape[1]), length[:, None] - 1)
    return jax.tree.map(lambda x: jax.vmap(lambda rows, index: rows[index])(x, place), steps)


def held_step(
    box: jax.Array,
    score: jax.Array,
    crop: jax.Array,
    progress: jax.Array,
    logits: jax.Array,
    boxes: jax.Array,
    photo_hw: jax.Array,
) -> ZoomStep:
    """A last look as a step: the best box of the view that overlaps the one found before, or else that one.

    Args:
        box: float32 [B, 4] xyxy photo px, that the search ended on.
        score: float32 [B], its score.
        crop: float32 [B, 4], where the look went.
        progress: float32 [B], of that crop.
        logits: [B, Q, L] of the view.
        boxes: float32 [B, Q, 4] cxcywh in 0..1 of it.
        photo_hw: int32 [B, 2].

    Returns:
        The step; its stop probability is 1, for nothing comes after it.
    """
    same = same_thing(boxes, crop, photo_hw, box)
    best, seen = best_box(jnp.where(same[..., None], logits, -jnp.inf), boxes)
    held = jnp.any(same, axis=1)
    box = where_rows(held, box_in_photo(best, crop, photo_hw), box)
    return ZoomStep(crop, box, jnp.where(held, seen, score), progress, jnp.ones_like(score))


def check_model(model: ZoomModel, config: ZoomConfig) -> None:
    """PizaError if the model has not what the mode asks for."""
    if config.mode == "piza" and not getattr(getattr(model, "config", None), "history", True):
        raise PizaError("this model has no PIZA history network to stop by; zoom with mode='training_free'")


def whole_photo(photo_hw: jax.Array) -> jax.Array:
    """Heights and widths int32 [B, 2] -> the boxes of the photos, float32 xyxy [B, 4]."""
    photo_wh = photo_hw[:, ::-1].astype(jnp.float32)
    return jnp.concatenate([jnp.zeros_like(photo_wh), photo_wh], axis=1)


def detect(
    model: ZoomModel, images: jax.Array, valid_hw: jax.Array, text: Any, progress: jax.Array, config: ZoomConfig
) -> tuple[jax.Array, jax.Array]:
    """The model's ``detect`` on views at the progress read, float32 [B], which only mode "piza" shows to it.

    Returns:
        Logits [B, Q, L], of as many layers as config.score_layers says, and the last layer's boxes float32 [B, Q, 4].
    """
    found = model.detect(images, valid_hw, text, jnp.clip(progress, 0.0, 1.0) if config.mode == "piza" else None)
    logits = found.logits[-1] if config.score_layers == 1 else jnp.mean(found.logits[-config.score_layers :], axis=0)
    return logits, found.boxes[-1].astype(jnp.float32)


def read(model: ZoomModel, history: jax.Array, last: int | jax.Array) -> Any:
    """The model's reading of histories [B, N + 1, 4] up to the box number ``last``, one for all or int32 [B]."""
    mask = jnp.broadcast_to(jnp.arange(history.shape[1]) <= jnp.reshape(last, (-1, 1)), history.shape[:2])
    return model.read_history(history, mask)


def follow(
    model: ZoomModel,
    crop: jax.Array,
    progress: jax.Array,
    box: jax.Array,
    history: jax.Array,
    last: jax.Array,
    whole: jax.Array,
    config: ZoomConfig,
) -> Following:
    """Where to look after boxes [B, 4] found in crops [B, 4], and whether the boxes are final.

    Args:
        model: reads the history in mode "piza".
        crop: float32 [B, 4] where the boxes were found.
        progress: float32 [B] of these crops; training-free it is found from the boxes.
        box: float32 [B, 4] xyxy photo px.
        history: float32 [B, N + 1, 4], with the boxes in it.
        last: place of the boxes in the history, one for all or int32 [B].
        whole: float32 [B, 4] the photos.
        config: how to zoom.
    """
    if config.mode == "piza":
        reading = read(model, history, last)
        final = reading.stop_probability >= config.stop_threshold
        next_crop = widen(_with_margin(box, config.margin, whole[:, 2:]), config.min_crop_px, whole[:, 2:])
        return Following(next_crop, reading.progress, progress, reading.stop_probability, final)
    next_crop, progress, nearness = _training_free(crop, box, whole, config)
    return Following(next_crop, jnp.zeros_like(progress), progress, nearness, nearness >= 1.0)


def _with_margin(box: jax.Array, margin: float, photo_wh: jax.Array) -> jax.Array:
    """Boxes [B, 4] with margin times their sides, moved into the photo."""
    if margin == 1:
        return box
    return square(0.5 * (box[:, :2] + box[:, 2:]), margin * (box[:, 2:] - box[:, :2]), photo_wh)


def _training_free(
    crop: jax.Array, box: jax.Array, whole: jax.Array, config: ZoomConfig
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Next crop [B, 4], progress of the crop [B], and how near the box is to the end of the rule [B], 1 = there."""
    photo_wh = whole[:, 2:]
    crop_side, box_side, photo_side = (jnp.sqrt(area(x)) for x in (crop, box, whole))
    longest = jnp.max(box[:, 2:] - box[:, :2], axis=1)
    side = crop_side ** (1.0 - config.step_progress) * box_side**config.step_progress
    side = jnp.maximum(jnp.maximum(side, config.context * longest), config.min_crop_px)
    following = square(0.5 * (box[:, :2] + box[:, 2:]), side[:, None], photo_wh)
    stuck = jnp.sqrt(area(following)) > _LEAST_SHRINK * crop_side
    nearness = jnp.where(stuck, 1.0, jnp.minimum(box_side / crop_side / config.tight, 1.0))
    return following, progress_of(crop_side, box_side, photo_side), nearness


def where_rows(chosen: jax.Array, new: jax.Array, old: jax.Array) -> jax.Array:
    """New rows where chosen, bool with the leading axes of both, else old ones."""
    return jnp.where(chosen.reshape(*chosen.shape, *(1,) * (new.ndim - chosen.ndim)), new, old)
