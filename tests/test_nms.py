"""Greedy suppression and merging of boxes against a plain loop."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from piza_jax.ops.boxes import iou_and_giou
from piza_jax.ops.nms import keep_best, matching


def overlap_of(a, b, metric):
    wide = min(a[2], b[2]) - max(a[0], b[0])
    tall = min(a[3], b[3]) - max(a[1], b[1])
    shared = max(wide, 0) * max(tall, 0)
    first, second = ((x[2] - x[0]) * (x[3] - x[1]) for x in (a, b))
    whole = min(first, second) if metric == "ios" else first + second - shared
    return shared / whole if shared else 0.0


def loop(boxes, scores, valid, limit, threshold, metric, merge):
    """Indices and boxes that greedy suppression keeps."""
    left = sorted(np.flatnonzero(valid), key=lambda i: -scores[i])
    kept = []
    while left and len(kept) < limit:
        best = left[0]
        same = [i for i in left if i == best or overlap_of(boxes[best], boxes[i], metric) >= threshold]
        group = boxes[same] if merge else boxes[[best]]
        kept.append((best, [*group[:, :2].min(0), *group[:, 2:].max(0)]))
        left = [i for i in left if i not in same]
    return kept


def draw(seed, count=60):
    rng = np.random.default_rng(seed)
    low = rng.uniform(0, 60, (count, 2))
    boxes = np.concatenate([low, low + rng.uniform(2, 40, (count, 2))], axis=1).astype(np.float32)
    boxes[count // 2 :: 7] = boxes[0]  # exact duplicates, as at overlaps of slices
    return boxes, rng.permutation(count).astype(np.float32) / count, rng.random(count) < 0.8


@pytest.mark.parametrize("merge", [False, True], ids=["suppress", "merge"])
@pytest.mark.parametrize(("metric", "threshold"), [("iou", 0.5), ("iou", 0.1), ("ios", 0.5), ("ios", 0.9)])
def test_equals_a_plain_loop(metric, threshold, merge):
    options = {"threshold": threshold, "metric": metric, "merge": merge}
    run, run_few = (jax.jit(partial(keep_best, limit=limit, **options)) for limit in (70, 3))
    counts = set()
    for seed in range(6):
        boxes, scores, valid = draw(seed)
        kept = jax.device_get(run(boxes, scores, valid))
        expected = loop(boxes, scores, valid, 70, threshold, metric, merge)
        count = len(expected)
        assert kept.source[:count].tolist() == [index for index, _ in expected]
        np.testing.assert_allclose(kept.boxes[:count], [box for _, box in expected], rtol=0, atol=0)
        np.testing.assert_array_equal(kept.scores[:count], scores[kept.source[:count]])
        assert kept.valid.tolist() == [True] * count + [False] * (70 - count)
        assert not kept.boxes[count:].any()
        assert not kept.scores[count:].any()
        counts.add(count)
        np.testing.assert_array_equal(run_few(boxes, scores, valid).source, kept.source[:3])
    assert 1 < max(counts) < 45  # some boxes are dropped and some kept


def test_overlap_is_the_intersection_over_union_or_over_the_smaller():
    boxes, _, _ = draw(9)
    pairs = jnp.asarray(boxes)[:, None], jnp.asarray(boxes)[None]
    np.testing.assert_allclose(matching(*pairs), iou_and_giou(*pairs)[0], rtol=0, atol=1e-6)
    for metric in ("iou", "ios"):
        expected = [[overlap_of(a, b, metric) for b in boxes] for a in boxes]
        np.testing.assert_allclose(matching(*pairs, metric), expected, rtol=0, atol=1e-6)


def test_boxes_without_area_match_nothing_and_nothing_gives_nothing():
    flat = jnp.array([[5.0, 5, 5, 9], [5, 5, 5, 9], [0, 0, 10, 10]])
    assert not matching(flat[:1], flat, "ios").any()
    assert not matching(flat[:1], flat, "iou").any()
    scores = jnp.array([3.0, 2.0, 1.0])
    kept = keep_best(flat, scores, jnp.ones(3, bool), 4)
    assert kept.source[:3].tolist() == [0, 1, 2]
    assert not keep_best(flat, scores, jnp.zeros(3, bool), 4, merge=True).valid.any()


def test_the_best_box_is_never_dropped_and_a_cut_box_grows_to_the_whole():
    whole, cut, other = [10.0, 10, 30, 30], [10.0, 10, 16, 30], [60.0, 60, 70, 70]
    boxes, scores = jnp.array([whole, cut, other]), jnp.array([0.8, 0.9, 0.5])
    kept = keep_best(boxes, scores, jnp.ones(3, bool), 3, metric="ios")
    assert kept.boxes[:2].tolist() == [cut, other]
    kept = keep_best(boxes, scores, jnp.ones(3, bool), 3, metric="ios", merge=True)
    assert kept.boxes[:2].tolist() == [whole, other]
    assert kept.scores[0] == scores[1]
    with pytest.raises(ValueError, match="'giou' is none of iou, ios"):
        keep_best(boxes, scores, jnp.ones(3, bool), 3, metric="giou")
