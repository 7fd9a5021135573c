"""The zoom loop: a photo, an expression and a detector become a tight box in a few crops, for a whole batch at once.

PIZA (mode "piza") reads the history of its boxes before each crop: the reading says how far the zoom has come, which
conditions the detector, and whether to stop. The next crop is the box just found.

A detector without PIZA weights (mode "training_free") zooms by a fixed rule. Its best box is where to look, not where
to crop: the next crop is a square around the box's centre whose side lies, in logarithms, ``step_progress`` of the way
from the crop's side to the box's (0.4, the way of the released model's own first crops), so that the context which the
sentence speaks of stays in view, and never so small that the box fills more than 1 / ``context`` of it. It stops when
the box is tight, its side at least ``tight`` of the crop's, or when the next crop would hardly be smaller.
"""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from flax import nnx

from piza_jax.errors import PizaError
from piza_jax.ops.boxes import area
from piza_jax.ops.crop import METHODS, crop_resize
from piza_jax.ops.images import normalise
from piza_jax.piza.boxes import LEAST_BOX_PX, best_box, box_in_photo, square, widen

MODES = ("piza", "training_free")

# A training-free crop that would keep more than this part of the side of the one before it is not worth a step.
_LEAST_SHRINK = 0.9


@dataclass(frozen=True)
class ZoomConfig:
    """How to zoom.

    Attributes:
        max_steps: most crops, N.
        stop_threshold: stop probability from which on a box is final (mode "piza").
        min_crop_px: least side of a crop, photo pixels; a smaller box is seen with its surroundings.
        canvas_hw: height and width that every crop is resized to (aspect kept, zeros around).
        mode: "piza", or "training_free" for a detector without PIZA weights.
        step_progress: training-free: how far, in logarithms of the side, a crop goes towards the box.
        context: training-free: least side of a crop, in longest sides of the box.
        tight: training-free: stop when the root of box area over crop area reaches this.
        crop_method: see ``ops.crop.crop_resize``.
    """

    max_steps: int = 5
    stop_threshold: float = 0.95
    min_crop_px: float = 32.0
    canvas_hw: tuple[int, int] = (1024, 1024)
    mode: str = "piza"
    step_progress: float = 0.4
    context: float = 1.5
    tight: float = 0.25
    crop_method: str = "auto"

    def __post_init__(self) -> None:
        rules = (
            ("max_steps", self.max_steps >= 1, "at least 1"),
            ("stop_threshold", self.stop_threshold > 0, "above 0"),
            ("min_crop_px", self.min_crop_px >= LEAST_BOX_PX, f"at least {LEAST_BOX_PX}"),
            ("canvas_hw", len(self.canvas_hw) == 2 and min(self.canvas_hw) >= 1, "a height and a width"),
            ("mode", self.mode in MODES, f"one of {', '.join(MODES)}"),
            ("step_progress", 0 < self.step_progress < 1, "between 0 and 1"),
            ("context", self.context >= 1, "at least 1"),
            ("tight", 0 < self.tight <= 1, "above 0 and at most 1"),
            ("crop_method", self.crop_method in METHODS, f"one of {', '.join(METHODS)}"),
        )
        for name, good, wanted in rules:
            if not good:
                raise PizaError(f"zoom.{name} is {getattr(self, name)!r}; it must be {wanted}")


def zoom_config_of(config: Mapping[str, Any], **changes: Any) -> ZoomConfig:
    """The zoom that fits a training configuration (its canvas, step limit and least crop), with changes.

    Raises:
        PizaError: an unknown or senseless field.
    """
    height, width = config["data"]["canvas_hw"]
    search = config.get("search", {})
    base = ZoomConfig(
        canvas_hw=(int(height), int(width)),
        max_steps=int(search.get("max_steps", ZoomConfig.max_steps)),
        min_crop_px=float(search.get("min_crop_px", ZoomConfig.min_crop_px)),
    )
    return changed(base, **changes)


def changed(config: ZoomConfig, **changes: Any) -> ZoomConfig:
    """A configuration with other values in some fields; PizaError for an unknown or senseless one."""
    known = config.__dataclass_fields__
    if unknown := sorted(set(changes) - set(known)):
        raise PizaError(f"unknown zoom option {', '.join(unknown)}; known are {', '.join(known)}")
    return dataclasses.replace(config, **changes)


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


class ZoomResult(NamedTuple):
    """The end of each zoom, and its steps; N = max_steps. Boxes are float32 xyxy photo pixels.

    Step t looks at crop t, finds box t in it, and then asks whether that box is final. Steps after the final one are
    not active and repeat it.
    """

    box: jax.Array  # [B, 4], the box of the last active step
    score: jax.Array  # [B], its score, 0..1
    num_steps: jax.Array  # int32 [B], 1..N
    crops: jax.Array  # [B, N, 4]
    boxes: jax.Array  # [B, N, 4]
    scores: jax.Array  # [B, N]
    progress: jax.Array  # [B, N], of the crop, as read (training-free: as the box found in it implies)
    stop_probability: jax.Array  # [B, N], that the box is final (training-free: how near it is to the rule's end)
    active: jax.Array  # bool [B, N]


class _Step(NamedTuple):
    """One step of a batch; also what the loop carries, as the step to keep for finished samples."""

    crop: jax.Array
    box: jax.Array
    score: jax.Array
    progress: jax.Array
    stop_probability: jax.Array


class _Carry(NamedTuple):
    step: _Step  # the last active step of each sample
    crop: jax.Array  # [B, 4], where to look next
    progress: jax.Array  # [B], of that crop
    history: jax.Array  # [B, N + 1, 4]
    active: jax.Array  # bool [B], not finished yet


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
    depend on the others.

    Args:
        model: the detector, see ZoomModel.
        photos: uint8 [B, PH, PW, 3] RGB, each in the top left corner.
        photo_hw: int32 [B, 2], height and width of each.
        text: features of the expressions, from the model's ``encode_text``; computed once for all steps.
        config: how to zoom.
        normalise: makes the detector's input of a view, see ``ops.images.normalise``.

    Raises:
        PizaError: mode "piza" with a model that has no history network.
    """
    if config.mode == "piza" and not getattr(getattr(model, "config", None), "history", True):
        raise PizaError("this model has no PIZA history network to stop by; zoom with mode='training_free'")
    graphdef, state = nnx.split(model)
    batch, n = photos.shape[0], config.max_steps
    photo_wh = photo_hw[:, ::-1].astype(jnp.float32)
    whole = jnp.concatenate([jnp.zeros_like(photo_wh), photo_wh], axis=1)  # b_0
    history = jnp.zeros((batch, n + 1, 4), jnp.float32).at[:, 0].set(whole)
    zeros = jnp.zeros((batch,), jnp.float32)
    start = _Carry(
        step=_Step(whole, whole, zeros, zeros, zeros),
        crop=whole,
        progress=_read(model, history, 0).progress if config.mode == "piza" else zeros,
        history=history,
        active=jnp.ones((batch,), bool),
    )

    def look(carry: _Carry, t: jax.Array) -> _Carry:
        # A model closed over by scan must be a copy inside it, or its variables belong to the outer trace.
        inner = nnx.merge(graphdef, state, copy=True)
        box, score = _detect(inner, carry, photos, photo_hw, text, config, normalise)
        history = carry.history.at[:, t + 1].set(box)
        if config.mode == "piza":
            reading = _read(inner, history, t + 1)
            found = _Step(carry.crop, box, score, carry.progress, reading.stop_probability)
            final = reading.stop_probability >= config.stop_threshold
            next_crop, next_progress = widen(box, config.min_crop_px, photo_wh), reading.progress
        else:
            next_crop, progress, nearness = _training_free(carry.crop, box, whole, config)
            found = _Step(carry.crop, box, score, progress, nearness)
            final, next_progress = nearness >= 1.0, zeros
        following = _Carry(found, next_crop, next_progress, history, ~final)
        kept = carry._replace(active=jnp.zeros_like(carry.active))
        return jax.tree.map(lambda new, old: _where(carry.active, new, old), following, kept)

    def body(carry: _Carry, t: jax.Array) -> tuple[_Carry, tuple[_Step, jax.Array]]:
        following = jax.lax.cond(jnp.any(carry.active), look, lambda same, _: same, carry, t)
        return following, (following.step, carry.active)

    end, (steps, active) = jax.lax.scan(body, start, jnp.arange(n))
    steps, active = jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), (steps, active))  # [B, N, ...]
    num_steps = jnp.sum(active, axis=1, dtype=jnp.int32)
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
    )


def _detect(
    model: ZoomModel,
    carry: _Carry,
    photos: jax.Array,
    photo_hw: jax.Array,
    text: Any,
    config: ZoomConfig,
    normalise: Normalise,
) -> tuple[jax.Array, jax.Array]:
    """Best box of each crop, xyxy photo px [B, 4] inside the crop, and its score [B]."""
    view, valid_hw = crop_resize(photos, photo_hw, carry.crop, config.canvas_hw, config.crop_method)
    progress = jnp.clip(carry.progress, 0.0, 1.0) if config.mode == "piza" else None
    detections = model.detect(normalise(view, valid_hw), valid_hw, text, progress)
    box, score = best_box(detections.logits[-1], detections.boxes[-1].astype(jnp.float32))
    return box_in_photo(box, carry.crop, photo_hw), score


def _read(model: ZoomModel, history: jax.Array, last: int | jax.Array) -> Any:
    mask = jnp.broadcast_to(jnp.arange(history.shape[1]) <= last, history.shape[:2])
    return model.read_history(history, mask)


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
    way = jnp.log(photo_side / jnp.minimum(box_side, 0.999 * photo_side))
    return following, jnp.clip(jnp.log(photo_side / crop_side) / way, 0.0, 1.0), nearness


def _where(active: jax.Array, new: jax.Array, old: jax.Array) -> jax.Array:
    return jnp.where(active.reshape(-1, *(1,) * (new.ndim - 1)), new, old)
