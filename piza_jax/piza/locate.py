"""The whole search, as configured: a zoom along one path or several, and a last look at where it ended."""

from typing import Any

import jax
import jax.numpy as jnp

from piza_jax.ops.crop import crop_resize
from piza_jax.ops.images import normalise
from piza_jax.piza.beam import beam_zoom
from piza_jax.piza.last_look import view_around
from piza_jax.piza.zoom import Normalise, ZoomModel, ZoomResult, ZoomStep, detect, held_step, where_rows, zoom
from piza_jax.piza.zoom_config import ZoomConfig


def locate(
    model: ZoomModel,
    photos: jax.Array,
    photo_hw: jax.Array,
    text: Any,
    config: ZoomConfig,
    normalise: Normalise = normalise,
) -> ZoomResult:
    """Zoom as configured. To be run under jit; arguments, result and errors are those of ``zoom``.

    Of several paths only the best one's end is looked at once more, when the paths have been compared.
    """
    if config.one_path:
        return zoom(model, photos, photo_hw, text, config, normalise)
    found = beam_zoom(model, photos, photo_hw, text, config, normalise)
    if config.last_look == 0:
        return found
    crop, progress = view_around(found.box, photo_hw, config)
    view, valid_hw = crop_resize(photos, photo_hw, crop, config.canvas_hw, config.crop_method)
    seen = detect(model, normalise(view, valid_hw), valid_hw, text, progress, config)
    return _with_step(found, held_step(found.box, found.score, crop, progress, *seen, photo_hw))


def _with_step(found: ZoomResult, step: ZoomStep) -> ZoomResult:
    """The result of several paths with one step more after the last of the best."""
    before = ZoomStep(found.crops, found.boxes, found.scores, found.progress, found.stop_probability)
    place = jnp.arange(found.active.shape[1] + 1)
    after = place >= found.num_steps[:, None]

    def extended(old: jax.Array, new: jax.Array) -> jax.Array:
        longer = jnp.concatenate([old, old[:, -1:]], axis=1)
        return where_rows(after, jnp.broadcast_to(new[:, None], longer.shape), longer)

    steps: ZoomStep = jax.tree.map(extended, before, step)
    beam = found.beam and found.beam._replace(
        boxes=found.beam.boxes.at[:, 0].set(step.box),
        scores=found.beam.scores.at[:, 0].set(step.score),
        passes=found.beam.passes + 1,
    )
    return found._replace(
        box=step.box,
        score=step.score,
        num_steps=found.num_steps + 1,
        crops=steps.crop,
        boxes=steps.box,
        scores=steps.score,
        progress=steps.progress,
        stop_probability=steps.stop_probability,
        active=place <= found.num_steps[:, None],
        beam=beam,
    )
