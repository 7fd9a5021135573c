"""Bootstrap intervals: against resampling one record after the other, against theory, and repeatable."""

import numpy as np
import pytest

from piza_jax.errors import PizaError
from piza_jax.evaluation.bootstrap import HEADLINE, intervals


def test_equals_resampling_record_by_record():
    iou = np.random.default_rng(0).random(37).astype(np.float32)
    ours = intervals(iou, resamples=50, seed=5, confidence=0.8)
    rng = np.random.default_rng(5)
    rows = []
    for _ in range(50):
        drawn = [iou[i] for i in rng.integers(0, 37, 37, dtype=np.int32)]
        shares = [np.mean([one >= np.float32(p / 100) for one in drawn]) for p in range(50, 100, 5)]
        rows.append((np.mean(shares), shares[0], shares[5], np.mean(drawn, dtype=np.float64)))
    for place, name in enumerate(HEADLINE):
        expected = np.quantile([row[place] for row in rows], [0.1, 0.9])
        np.testing.assert_allclose(ours[name], expected, rtol=0, atol=1e-9)


def test_width_is_that_of_theory():
    iou = np.where(np.random.default_rng(1).random(2000) < 0.3, 0.9, 0.1)
    low, high = intervals(iou)["Acc50"]
    share = np.mean(iou > 0.5)
    assert low < share < high
    assert high - low == pytest.approx(2 * 1.96 * np.sqrt(share * (1 - share) / 2000), rel=0.1)


def test_seeded_and_within_what_was_seen():
    iou = np.linspace(0, 1, 101)
    assert intervals(iou, 100) == intervals(iou, 100)
    assert intervals(iou, 100) != intervals(iou, 100, seed=1)
    assert all(interval == (1.0, 1.0) for interval in intervals(np.ones(3), 10).values())


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (([],), r"got \[0\]"),
        (([0.5], 0), "got 0"),
        (([0.5], 10, 0, 1.0), "got 1.0"),
    ],
)
def test_mistakes_are_named(given, words):
    with pytest.raises(PizaError, match=words):
        intervals(*given)
