"""A path score that is learnt: how likely the last box of a path is right, from a few numbers of its looks.

A logistic regression on FEATURES. Its coefficients are fitted on a validation split (evaluation.learn) and come with
the settings of a zoom; what is fitted and what is used are the same numbers, for both come from ``path_features``.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from piza_jax.errors import PizaError
from piza_jax.ops.boxes import area, inverse_sigmoid, iou_and_giou

# Scores and probabilities are seen as log odds, at most those of 1 in 10,000.
_LEAST_CHANCE = 1e-4

FEATURES = (
    "last_score",  # log odds of the last box's score
    "mean_score",  # mean of the log odds of all looks
    "least_score",  # the least of them
    "first_score",  # that of the first look
    "stop",  # log odds that the last box is final
    "progress",  # of the last crop, as read
    "looks",  # how many there were
    "size",  # logarithm of the last box's side over the photo's
    "tightness",  # the same over its crop's
    "largest_step",  # least logarithm, over all looks, of the side of the box over that of its crop
    "margin",  # least distance of the last box from an edge of its crop, in sides of the crop
    "aspect",  # how far from square the last box is: logarithm of the longer side over the shorter
    "agreement",  # IoU of the last box with the one before it; 0 where there is none
)


@dataclass(frozen=True)
class LearntScore:
    """Coefficients of the regression.

    Attributes:
        rule: simple path score that paths are compared by while the beam goes on; the learnt one compares their ends.
        features: their names, FEATURES.
        mean: of each, subtracted from it.
        scale: of each, that the difference is divided by.
        weights: of each, after that.
        bias: added to the sum.
    """

    rule: str
    features: tuple[str, ...]
    mean: tuple[float, ...]
    scale: tuple[float, ...]
    weights: tuple[float, ...]
    bias: float

    def __post_init__(self) -> None:
        if tuple(self.features) != FEATURES:
            raise PizaError(
                f"the learnt path score is of the features {', '.join(self.features)}; this version reads "
                f"{', '.join(FEATURES)}: run piza tune again"
            )
        for name in ("mean", "scale", "weights"):
            values = getattr(self, name)
            if len(values) != len(FEATURES) or not np.isfinite(values).all():
                raise PizaError(f"the learnt path score has no finite {name} for each of its {len(FEATURES)} features")
        if min(self.scale) <= 0 or not np.isfinite(self.bias):
            raise PizaError("the learnt path score has a scale that is not above 0, or no finite bias")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "LearntScore":
        """From plain values, as JSON has them. PizaError for others than it needs, or of another kind."""
        names = [field.name for field in fields(cls)]
        if sorted(values) != sorted(names):
            raise PizaError(f"a learnt path score has {', '.join(names)}, and not {', '.join(map(str, values))}")
        try:
            numbers = {name: tuple(map(float, values[name])) for name in ("mean", "scale", "weights")}
            words = tuple(map(str, values["features"]))
            return cls(str(values["rule"]), words, bias=float(values["bias"]), **numbers)
        except (TypeError, ValueError) as error:
            raise PizaError(f"a learnt path score that is damaged: {error}") from error

    def log_score(self, features: jax.Array) -> jax.Array:
        """Logarithm of the chance that a path with these features [..., F] is right, [...]."""
        mean, scale, weights = (jnp.array(values, jnp.float32) for values in (self.mean, self.scale, self.weights))
        return jax.nn.log_sigmoid(jnp.sum((features - mean) / scale * weights, axis=-1) + self.bias)


def path_features(steps: Any, active: jax.Array) -> jax.Array:
    """FEATURES of paths.

    Args:
        steps: a ZoomStep of arrays [..., N, 4] and [..., N], boxes xyxy photo pixels; the first crop is the whole
            photo, and steps after the last active one repeat it.
        active: bool [..., N], steps in which the path looked; the first are.

    Returns:
        float32 [..., F].
    """
    count = jnp.sum(active, axis=-1)
    odds = inverse_sigmoid(steps.score, _LEAST_CHANCE)
    box_side, crop_side = (_log_side(boxes) for boxes in (steps.box, steps.crop))  # [..., N]
    last, crop = steps.box[..., -1, :], steps.crop[..., -1, :]
    size = jnp.maximum(last[..., 2:] - last[..., :2], 1e-6)
    room = jnp.concatenate([last[..., :2] - crop[..., :2], crop[..., 2:] - last[..., 2:]], axis=-1)
    crop_size = jnp.maximum(crop[..., 2:] - crop[..., :2], 1e-6)
    margin = jnp.min(room / jnp.concatenate([crop_size, crop_size], axis=-1), axis=-1)
    settled = iou_and_giou(steps.box[..., 1:, :], steps.box[..., :-1, :])[0]  # [..., N - 1]
    before = jnp.arange(settled.shape[-1]) == count[..., None] - 2
    values = (
        odds[..., -1],
        jnp.sum(jnp.where(active, odds, 0.0), axis=-1) / jnp.maximum(count, 1),
        jnp.min(jnp.where(active, odds, jnp.inf), axis=-1),
        odds[..., 0],
        inverse_sigmoid(steps.stop_probability[..., -1], _LEAST_CHANCE),
        steps.progress[..., -1],
        count.astype(jnp.float32),
        box_side[..., -1] - crop_side[..., 0],
        box_side[..., -1] - crop_side[..., -1],
        jnp.min(jnp.where(active, box_side - crop_side, jnp.inf), axis=-1),
        margin,
        jnp.abs(jnp.log(size[..., 0] / size[..., 1])),
        jnp.sum(jnp.where(before, settled, 0.0), axis=-1),
    )
    features = jnp.stack([value.astype(jnp.float32) for value in values], axis=-1)
    return jnp.where(jnp.isfinite(features), features, 0.0)  # of places of a beam that are empty


def as_learnt(value: Any) -> LearntScore | None:
    """A learnt score from itself, from a mapping, or None from None. PizaError for anything else."""
    if value is None or isinstance(value, LearntScore):
        return value
    if isinstance(value, Mapping):
        return LearntScore.from_dict(value)
    raise PizaError(f"a learnt path score is what piza tune writes, not {value!r}")


def _log_side(boxes_xyxy: jax.Array) -> jax.Array:
    return 0.5 * jnp.log(jnp.maximum(area(boxes_xyxy), 1e-6))
