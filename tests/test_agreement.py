"""Overlaps and accuracies beside those of others: NumPy, COCO's evaluation and torchvision, fed the same boxes."""

import contextlib
import io

import jax.numpy as jnp
import numpy as np
import pytest

from piza_jax.evaluation import scoring
from piza_jax.evaluation.details import WIDE_THRESHOLDS
from piza_jax.evaluation.geometry import overlaps
from piza_jax.evaluation.metrics import THRESHOLDS, accuracy
from piza_jax.ops.boxes import iou_and_giou
from piza_jax.piza.results import Grounding
from tests import figures

COUNT = 400


@pytest.fixture(scope="module")
def boxes():
    """Boxes and targets, float64 [N, 4] whole pixels so that float32 holds them: near ones, and every special case."""
    rng = np.random.default_rng(0)
    corner, size = rng.integers(0, 4000, (COUNT, 2)), rng.integers(12, 60, (COUNT, 2))
    targets = np.concatenate([corner, corner + size], axis=1)
    moved = corner + rng.integers(-12, 13, (COUNT, 2))
    found = np.concatenate([moved, moved + size + rng.integers(-8, 9, (COUNT, 2))], axis=1)
    special = [
        ([0, 0, 10, 10], [10, 0, 20, 10]),  # touching sides
        ([0, 0, 10, 10], [10, 10, 20, 20]),  # touching corners
        ([0, 0, 10, 10], [0, 0, 10, 10]),  # equal
        ([0, 0, 10, 10], [2, 2, 4, 4]),  # one in the other
        ([2, 2, 4, 4], [0, 0, 10, 10]),
        ([0, 0, 10, 20], [0, 0, 10, 10]),  # exactly one half
        ([0, 0, 20, 15], [0, 0, 20, 20]),  # exactly three quarters
        ([90, 90, 99, 99], [0, 0, 10, 10]),  # far apart
        ([5, 5, 5, 9], [0, 0, 10, 10]),  # without an area
    ]
    ours, others = (np.array([pair[i] for pair in special]) for i in (0, 1))
    return np.concatenate([found, ours]).astype(float), np.concatenate([targets, others]).astype(float)


def numpy_iou(one, other):
    """By counting whole pixels on a grid around each pair: it shares no formula with ours."""
    values = []
    for a, b in zip(one.astype(int), other.astype(int), strict=True):
        low = np.minimum(a[:2], b[:2])
        masks = np.zeros((2, *(np.maximum(a[2:], b[2:]) - low)), bool)
        for mask, box in zip(masks, (a, b), strict=True):
            mask[box[0] - low[0] : box[2] - low[0], box[1] - low[1] : box[3] - low[1]] = True
        values.append(np.count_nonzero(masks.all(axis=0)) / np.count_nonzero(masks.any(axis=0)))
    return np.array(values)


def score_of(boxes):
    found, targets = boxes
    answers = [
        scoring.Answer(tuple(target), 5, Grounding("a thing", tuple(box), 0.5, ()), [tuple(box)], 0)
        for box, target in zip(found.tolist(), targets.tolist(), strict=True)
    ]
    return scoring.score(answers).details["all"]["all"]


def shares_at(boxes, thresholds):
    """Our share of right boxes at each threshold."""
    iou = jnp.asarray(overlaps(*boxes), jnp.float32)
    valid = jnp.ones(len(iou), bool)
    return [float(accuracy(level).from_model_output(iou=iou, valid=valid).compute()) for level in thresholds]


def test_overlaps_and_every_accuracy_are_those_of_counted_pixels(boxes):
    expected = numpy_iou(*boxes)
    np.testing.assert_allclose(overlaps(*boxes), expected, rtol=0, atol=1e-12)
    on_device = np.asarray(iou_and_giou(*map(jnp.asarray, boxes))[0])
    np.testing.assert_allclose(on_device, expected, rtol=0, atol=1e-6)
    figures.note("IoU on the device against counted pixels", np.abs(on_device - expected).max())
    shares = [np.mean(expected >= percent / 100 - 1e-12) for percent in range(5, 100, 5)]
    np.testing.assert_allclose(shares_at(boxes, WIDE_THRESHOLDS), shares, rtol=0, atol=1e-6)
    ours = score_of(boxes)
    assert ours["mAcc"] == pytest.approx(np.mean(shares[9:]), abs=1e-6)
    assert ours["wide_mAcc"] == pytest.approx(np.mean(shares), abs=1e-6)
    assert (ours["Acc50"], ours["Acc75"]) == pytest.approx((shares[9], shares[14]), abs=1e-6)
    assert ours["mean_iou"] == pytest.approx(expected.mean(), abs=1e-6)


def as_xywh(boxes):
    return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)


def test_coco_measures_the_same(boxes):
    reason = "pycocotools is not installed; it is in the extra `test`"
    mask = pytest.importorskip("pycocotools.mask", reason=reason)
    coco = pytest.importorskip("pycocotools.coco", reason=reason)
    evaluation = pytest.importorskip("pycocotools.cocoeval", reason=reason)
    found, targets = map(as_xywh, boxes)
    theirs = [float(mask.iou(a[None], b[None], [0])[0, 0]) for a, b in zip(found, targets, strict=True)]
    np.testing.assert_allclose(overlaps(*boxes), theirs, rtol=0, atol=1e-6)
    figures.note("IoU against pycocotools", np.abs(overlaps(*boxes) - theirs).max())
    truth, numbers = coco.COCO(), range(1, len(found) + 1)
    truth.dataset = {
        "images": [{"id": number} for number in numbers],
        "categories": [{"id": 1}],
        "annotations": [
            {"id": n, "image_id": n, "category_id": 1, "bbox": box.tolist(), "area": box[2] * box[3], "iscrowd": 0}
            for n, box in zip(numbers, targets, strict=True)
        ],
    }
    results = [
        {"image_id": n, "category_id": 1, "bbox": box.tolist(), "score": 0.5}
        for n, box in zip(numbers, found, strict=True)
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        run = evaluation.COCOeval(truth, truth.loadRes(results), "bbox")
        run.evaluate()
        run.accumulate()
    # With one target and one box in an image, COCO's recall at a threshold is the share of right boxes.
    recall = run.eval["recall"][:, 0, 0, 0]
    np.testing.assert_allclose(run.params.iouThrs, THRESHOLDS, atol=1e-6)
    np.testing.assert_allclose(shares_at(boxes, THRESHOLDS), recall, rtol=0, atol=1e-6)
    assert score_of(boxes)["mAcc"] == pytest.approx(recall.mean(), abs=1e-6)


def test_torchvision_measures_the_same(boxes):
    torch = pytest.importorskip("torch", reason="the parity extra is not installed")
    try:
        from torchvision import ops
    except (ImportError, RuntimeError) as error:  # it is in no extra, and refuses a torch that it was not built for
        pytest.skip(f"torchvision cannot be imported: {error}")
    theirs = ops.box_iou(*(torch.from_numpy(one) for one in boxes)).diagonal().numpy()
    np.testing.assert_allclose(overlaps(*boxes), theirs, rtol=0, atol=1e-6)
    theirs = ops.generalized_box_iou(*(torch.from_numpy(one) for one in boxes)).diagonal().numpy()
    np.testing.assert_allclose(iou_and_giou(*map(jnp.asarray, boxes))[1], theirs, rtol=0, atol=1e-6)
