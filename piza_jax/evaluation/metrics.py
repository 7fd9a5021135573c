"""SOREC's measures of a grounding, for all samples and by size of the target, mergeable over batches.

A batch becomes ``{group: GroundingMetrics}`` with ``measure`` (which may be jitted), batches are added up with
``merge``, and ``summarise`` and ``table`` turn the sums of one or more splits into numbers for JSON and for reading.
"""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from functools import reduce
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from clu import metrics
from flax import struct

from piza_jax.errors import PizaError

# IoU .50:.05:.95. In float32, as the overlaps are, so that an overlap of exactly 0.55 counts at 0.55.
THRESHOLDS = (np.arange(50, 100, 5) / 100).astype(np.float32)

# SOREC's targets fill 714 to 2000 square pixels; these cut each of its splits into three parts of useful size.
SIZE_EDGES_PX2 = (1000.0, 1500.0)

ALL = "all"
COLUMNS = ("mAcc", "Acc50", "Acc75", "mean_iou", "mean_steps", "count")

Groups = OrderedDict[str, "GroundingMetrics"]  # jit sorts the keys of a plain dict
Summary = dict[str, dict[str, dict[str, Any] | None]]


def accuracy(*thresholds: float) -> Any:
    """Share of samples whose overlap reaches a threshold (equality counts), averaged over the thresholds."""
    levels = np.array(thresholds, np.float32)

    def hits(iou: jax.Array, valid: jax.Array, **_: Any) -> dict[str, jax.Array]:
        return {"values": iou[:, None] >= levels, "mask": jnp.broadcast_to(valid[:, None], (len(iou), len(levels)))}

    return metrics.Average.from_fun(hits)


def _mean(name: str) -> Any:
    def pick(valid: jax.Array, **outputs: jax.Array) -> dict[str, jax.Array]:
        return {"values": outputs[name].astype(jnp.float32), "mask": valid}

    return metrics.Average.from_fun(pick)


@struct.dataclass
class Count(metrics.Metric):
    """Number of valid samples, int32."""

    total: jax.Array

    @classmethod
    def empty(cls) -> "Count":
        """None so far."""
        return cls(jnp.zeros((), jnp.int32))

    @classmethod
    def from_model_output(cls, valid: jax.Array, **_: Any) -> "Count":
        """Count the True entries of ``valid`` bool [B]."""
        return cls(jnp.sum(valid, dtype=jnp.int32))

    def merge(self, other: "Count") -> "Count":
        """Add."""
        return type(self)(self.total + other.total)

    def compute(self) -> jax.Array:
        """The number."""
        return self.total


@struct.dataclass
class GroundingMetrics(metrics.Collection):
    """Sums over samples; ``single_from_model_output(iou=[B], steps=[B], valid=bool [B])`` measures a batch.

    The prediction of a sample is its one final box. Acc50 and Acc75 are the shares 0..1 of samples that reach an IoU,
    mAcc is the mean of such shares over IoU .50:.05:.95, the measures of the paper's tables. (The released metric class
    computes another mean, over the best of 1, 5 and 10 boxes at IoU .5.)
    """

    mAcc: accuracy(*THRESHOLDS)  # type: ignore[valid-type]
    Acc50: accuracy(0.5)  # type: ignore[valid-type]
    Acc75: accuracy(0.75)  # type: ignore[valid-type]
    mean_iou: _mean("iou")  # type: ignore[valid-type]
    mean_steps: _mean("steps")  # type: ignore[valid-type]
    count: Count


def size_names(edges_px2: Sequence[float] = SIZE_EDGES_PX2) -> tuple[str, ...]:
    """Names of the size groups, smallest first: each edge belongs to the group above it.

    Raises:
        PizaError: edges that do not increase.
    """
    if not edges_px2:
        return ()
    if any(high <= low for low, high in pairwise((0.0, *edges_px2))):
        raise PizaError(f"size edges {list(edges_px2)} (square pixels) must be above 0 and increase")
    marks = [f"{edge:g}" for edge in edges_px2]
    between = [f"{low}..{high} px2" for low, high in pairwise(marks)]
    return (f"< {marks[0]} px2", *between, f">= {marks[-1]} px2")


def measure(
    iou: jax.Array,
    steps: jax.Array,
    area_px2: jax.Array,
    valid: jax.Array,
    edges_px2: Sequence[float] = SIZE_EDGES_PX2,
) -> Groups:
    """Measure one batch; samples that are not valid (padding of the last batch) count nowhere.

    Args:
        iou: float32 [B] overlap of the final box with the target, 0..1.
        steps: int [B] views that the detector saw, such as the crops of a zoom.
        area_px2: [B] area of the target in photo pixels.
        valid: bool [B], True = a sample.
        edges_px2: area at which a size group ends and the next one begins, increasing.

    Returns:
        Metrics of ``ALL`` and of each of ``size_names``.

    Raises:
        PizaError: edges that do not increase, or arrays that are not all [B].
    """
    iou, steps, area_px2, valid = map(jnp.asarray, (iou, steps, area_px2, valid))
    shapes = [list(array.shape) for array in (iou, steps, area_px2, valid)]
    if iou.ndim != 1 or any(shape != shapes[0] for shape in shapes) or valid.dtype != bool:
        raise PizaError(
            f"measure() got iou, steps, area_px2 and valid of the shapes {', '.join(map(str, shapes))} "
            f"(valid {valid.dtype}); give one value of each for each sample, valid as bool"
        )
    bucket = jnp.searchsorted(jnp.array(edges_px2, jnp.float32), area_px2.astype(jnp.float32), side="right")
    members = {ALL: valid} | {name: valid & (bucket == i) for i, name in enumerate(size_names(edges_px2))}
    take = GroundingMetrics.single_from_model_output
    return OrderedDict((name, take(iou=iou, steps=steps, valid=member)) for name, member in members.items())


def merge(batches: Sequence[Groups]) -> Groups:
    """Add up the metrics of batches that were measured with the same edges.

    Raises:
        PizaError: no batches at all, or batches of other groups.
    """
    if not batches:
        raise PizaError("there is nothing to merge: the evaluation saw no batch; is the split empty?")
    names = list(batches[0])
    if any(list(batch) != names for batch in batches):
        raise PizaError("batches measured with different size edges cannot be merged; use the same edges for all")
    return OrderedDict((name, reduce(GroundingMetrics.merge, [batch[name] for batch in batches])) for name in names)


def summarise(splits: Mapping[str, Groups]) -> Summary:
    """Numbers of each split and group: {split: {group: {name of COLUMNS: number}}}, ready for JSON.

    Accuracies and IoU are shares 0..1. A group without a sample is None.
    """
    return {split: {name: _numbers(group) for name, group in groups.items()} for split, groups in splits.items()}


def _numbers(group: GroundingMetrics) -> dict[str, float | int] | None:
    if int(group.count.compute()) == 0:
        return None
    values = jax.device_get(group.compute())
    return {name: int(values[name]) if name == "count" else float(values[name]) for name in COLUMNS}


def table(summary: Summary) -> str:
    """The same numbers as an aligned text table: accuracies and IoU in percent, "-" where there is no sample.""" ""
    header = ("split", "targets", "mAcc %", "Acc50 %", "Acc75 %", "IoU %", "steps", "count")
    rows = [header]
    for split, groups in summary.items():
        for name, values in groups.items():
            if values is None:
                cells = ["-"] * 5 + ["0"]
            else:
                shares = [f"{100 * values[column]:.1f}" for column in COLUMNS[:4]]
                steps = values["mean_steps"]
                cells = [*shares, "-" if steps is None else f"{steps:.2f}", f"{values['count']}"]
            rows.append((split, name, *cells))  # type: ignore[arg-type]
    widths = [max(len(row[column]) for row in rows) for column in range(len(header))]
    lines = []
    for row in rows:
        placed = enumerate(zip(row, widths, strict=True))
        words = [cell.ljust(width) if column < 2 else cell.rjust(width) for column, (cell, width) in placed]
        lines.append("  ".join(words).rstrip())
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])
