"""Every measure of a grounding beyond the headline, summed over samples on the device and mergeable over batches.

A batch of ``Outcomes`` becomes a ``DetailMetrics`` for each group that ``groups`` names. All of it may run under jit;
with arrays sharded over a mesh the sums are those of the whole batch, however many devices and processes hold it.
"""

from operator import add
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from clu import metrics
from flax import struct

from piza_jax.evaluation.metrics import THRESHOLDS, Count, accuracy

# IoU .05:.05:.95, the whole range at which the released evaluation computes accuracies; float32 as THRESHOLDS are.
WIDE_THRESHOLDS = (np.arange(5, 100, 5) / 100).astype(np.float32)
RIGHT_IOU = 0.5  # a box with at least this overlap is right
RANKS = (1, 5, 10)
CALIBRATION_BINS = 10


class Outcomes(NamedTuple):
    """What came out for the samples of a batch, arrays [B]; boxes are compared in photo pixels.

    Attributes:
        iou: float32, overlap of the final box with the target, 0..1.
        centre_px: float32, distance of their centres, pixels.
        centre_widths: float32, the same in widths of the target.
        area_px2: float32, area of the target, square pixels.
        words: int32, words of the expression.
        steps: int32, crops of the zoom; 0: unknown.
        score: float32, 0..1, of the final box; NaN: none given.
        right_stops: int32, decisions to stop or to go on that were right, see ``failures.judge``.
        stops: int32, decisions for which right and wrong are defined; 0 where steps are unknown.
        ranked_iou: float32 [B, K], overlaps of the boxes given for a sample, best score first; 0 where there are fewer.
        ranked: bool, True = the sample counts for top-k accuracy.
        valid: bool, False = padding, which counts nowhere.
    """

    iou: Any
    centre_px: Any
    centre_widths: Any
    area_px2: Any
    words: Any
    steps: Any
    score: Any
    right_stops: Any
    stops: Any
    ranked_iou: Any
    ranked: Any
    valid: Any


def _mean_where(name: str, known: str = "") -> Any:
    """Mean of an output over the valid samples for which another output is above 0."""

    def pick(valid: jax.Array, **outputs: jax.Array) -> dict[str, jax.Array]:
        mask = valid & (outputs[known] > 0) if known else valid
        return {"values": outputs[name].astype(jnp.float32), "mask": mask}

    return metrics.Average.from_fun(pick)


def _top(rank: int) -> Any:
    def hits(ranked_iou: jax.Array, ranked: jax.Array, valid: jax.Array, **_: Any) -> dict[str, jax.Array]:
        return {"values": jnp.max(ranked_iou[:, :rank], axis=1) >= RIGHT_IOU, "mask": valid & ranked}

    return metrics.Average.from_fun(hits)


@struct.dataclass
class StopAccuracy(metrics.Metric):
    """Share of the decisions to stop or to go on that were right, over all decisions of all samples."""

    right: jax.Array
    total: jax.Array

    @classmethod
    def empty(cls) -> "StopAccuracy":
        """No decision so far."""
        return cls(jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32))

    @classmethod
    def from_model_output(cls, right_stops: jax.Array, stops: jax.Array, valid: jax.Array, **_: Any) -> "StopAccuracy":
        """Sums of int32 [B] over the True entries of ``valid`` bool [B]."""
        return cls(*(jnp.sum(jnp.where(valid, number, 0), dtype=jnp.int32) for number in (right_stops, stops)))

    def merge(self, other: "StopAccuracy") -> "StopAccuracy":
        """Add."""
        return type(self)(self.right + other.right, self.total + other.total)

    def compute(self) -> jax.Array:
        """The share, 0..1; NaN where there was no decision."""
        return self.right / self.total


@struct.dataclass
class CalibrationError(metrics.Metric):
    """Expected calibration error of the score (Guo et al. 2017, eq. 3): a score should be the chance of a right box.

    Ten bins of equal width, each closed below; a score of 1 is in the last one. Samples without a score do not count.
    """

    counts: jax.Array  # int32 [10]
    scores: jax.Array  # float32 [10], sums
    hits: jax.Array  # int32 [10]

    @classmethod
    def empty(cls) -> "CalibrationError":
        """No sample so far."""
        none = jnp.zeros(CALIBRATION_BINS, jnp.int32)
        return cls(none, none.astype(jnp.float32), none)

    @classmethod
    def from_model_output(cls, iou: jax.Array, score: jax.Array, valid: jax.Array, **_: Any) -> "CalibrationError":
        """Sums by bin of scores float32 [B] and of overlaps [B] that are right."""
        edges = np.arange(1, CALIBRATION_BINS, dtype=np.float32) / np.float32(CALIBRATION_BINS)
        bins = jnp.sum(score[:, None] >= edges, axis=1)
        member = (bins[:, None] == jnp.arange(CALIBRATION_BINS)) & (valid & jnp.isfinite(score))[:, None]
        return cls(
            jnp.sum(member, axis=0, dtype=jnp.int32),
            jnp.sum(jnp.where(member, score[:, None], 0.0), axis=0, dtype=jnp.float32),
            jnp.sum(member & (iou >= RIGHT_IOU)[:, None], axis=0, dtype=jnp.int32),
        )

    def merge(self, other: "CalibrationError") -> "CalibrationError":
        """Add."""
        return jax.tree.map(add, self, other)

    def compute(self) -> jax.Array:
        """The error, 0..1; NaN where no sample has a score."""
        return jnp.sum(jnp.abs(self.hits - self.scores)) / jnp.sum(self.counts)


@struct.dataclass
class DetailMetrics(metrics.Collection):
    """Sums over samples; ``single_from_model_output(**outcomes._asdict())`` measures a batch.

    Accuracies are shares 0..1 of samples whose overlap reaches an IoU (equality counts): Acc50 and Acc75 at .5 and .75,
    mAcc the mean over .50:.05:.95, wide_mAcc the mean over .05:.05:.95. top1, top5 and top10 are the shares for which
    one of the best so many boxes reaches .5. Where a measure has no sample, it is NaN.
    """

    mAcc: accuracy(*THRESHOLDS)  # type: ignore[valid-type]
    Acc50: accuracy(0.5)  # type: ignore[valid-type]
    Acc75: accuracy(0.75)  # type: ignore[valid-type]
    wide_mAcc: accuracy(*WIDE_THRESHOLDS)  # type: ignore[valid-type]
    top1: _top(1)  # type: ignore[valid-type]
    top5: _top(5)  # type: ignore[valid-type]
    top10: _top(10)  # type: ignore[valid-type]
    mean_iou: _mean_where("iou")  # type: ignore[valid-type]
    centre_px: _mean_where("centre_px")  # type: ignore[valid-type]
    centre_widths: _mean_where("centre_widths")  # type: ignore[valid-type]
    mean_steps: _mean_where("steps", known="steps")  # type: ignore[valid-type]
    stop_accuracy: StopAccuracy
    calibration_error: CalibrationError
    count: Count


DETAILS = tuple(name for name in DetailMetrics.__annotations__ if name != "_reduction_counter")
