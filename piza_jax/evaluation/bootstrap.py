"""Confidence intervals of the headline measures by resampling records (Efron 1979, percentile method)."""

from typing import NamedTuple

import numpy as np

from piza_jax.errors import PizaError
from piza_jax.evaluation.metrics import THRESHOLDS

HEADLINE = ("mAcc", "Acc50", "Acc75", "mean_iou")


class Interval(NamedTuple):
    """Lower and upper end."""

    low: float
    high: float


def intervals(iou: np.ndarray, resamples: int = 1000, seed: int = 0, confidence: float = 0.95) -> dict[str, Interval]:
    """Intervals of HEADLINE, shares 0..1.

    Each resample draws as many records as there are, with replacement; an interval holds the middle ``confidence`` of
    the measures of the resamples. The same overlaps and seed give the same intervals.

    Args:
        iou: float [N], overlap of each record's final box with its target.
        resamples: how many.
        seed: of the draws.
        confidence: between 0 and 1.

    Raises:
        PizaError: no records, less than one resample, or a confidence outside 0..1.
    """
    iou = np.asarray(iou, np.float32)
    if iou.ndim != 1 or not len(iou) or resamples < 1 or not 0 < confidence < 1:
        raise PizaError(
            f"bootstrap needs overlaps [N] of at least one record (got {list(iou.shape)}), at least one resample "
            f"(got {resamples}) and a confidence between 0 and 1 (got {confidence})"
        )
    reached = iou[:, None] >= THRESHOLDS
    columns = [reached.mean(axis=1), reached[:, 0], reached[:, int(np.flatnonzero(THRESHOLDS == 0.75)[0])], iou]
    values = np.stack(columns, axis=1).astype(np.float64)  # [N, 4]
    rng, count = np.random.default_rng(seed), len(iou)
    means = np.empty((resamples, len(HEADLINE)))
    for row in range(resamples):
        weights = np.bincount(rng.integers(0, count, count, dtype=np.int32), minlength=count)
        means[row] = weights @ values / count
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2], axis=0)
    return {name: Interval(float(low[i]), float(high[i])) for i, name in enumerate(HEADLINE)}
