"""Results in the hands of supervision and of COCO's own evaluation."""

import contextlib
import io
import sys

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from piza_jax.errors import PizaError
from piza_jax.interop import to_coco, to_supervision
from piza_jax.piza.phrases import PhraseDetections
from piza_jax.piza.results import Grounding

CAR = Grounding("the red car", (10.0, 20.0, 50.0, 60.5), 0.9, ())
CONE = Grounding("the cone", (1.0, 2.0, 3.0, 5.0), 0.4, ())
CATS = PhraseDetections(
    "a cat. a dog.",
    np.array([[0, 0, 10, 20], [30, 30, 60, 70], [5, 5, 9, 9]], np.float32),
    np.array([0.8, 0.7, 0.3], np.float32),
    ("a cat", "a dog", "a cat"),
)
NOTHING = PhraseDetections("a cat.", np.zeros((0, 4), np.float32), np.zeros(0, np.float32), ())


def test_supervision_holds_and_draws_what_was_found():
    sv = pytest.importorskip("supervision")
    found = to_supervision([CAR, CONE])
    np.testing.assert_array_equal(found.xyxy, [CAR.box, CONE.box])
    np.testing.assert_allclose(found.confidence, [0.9, 0.4])
    assert list(found.data["class_name"]) == ["the red car", "the cone"]
    assert len(found[found.confidence > 0.5]) == len(to_supervision(CAR)) == 1
    scene = np.zeros((100, 100, 3), np.uint8)
    drawn = sv.BoxAnnotator(thickness=1).annotate(scene.copy(), found)
    assert drawn[20:60, 10].any(axis=-1).all()


def test_supervision_numbers_the_labels_of_phrases():
    pytest.importorskip("supervision")
    found = to_supervision(CATS)
    assert list(found.class_id) == [0, 1, 0]
    assert len(found[found.class_id == 0]) == 2
    assert len(to_supervision(NOTHING)) == 0


def test_without_supervision_the_error_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(PizaError, match="pip install supervision"):
        to_supervision(CAR)


def test_cocos_own_evaluation_finds_every_box_right():
    results = to_coco(CATS, 7, {"a cat": 3, "a dog": 4})
    truth = {
        "images": [{"id": 7, "width": 100, "height": 100}],
        "categories": [{"id": 3}, {"id": 4}],
        "annotations": [
            {"id": n + 1, "area": 1.0 * box[2] * box[3], "iscrowd": 0} | {**one, "bbox": box}
            for n, one in enumerate(results)
            for box in [one["bbox"]]
        ],
    }
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = truth
        coco.createIndex()
        measured = COCOeval(coco, coco.loadRes(results), "bbox")
        measured.evaluate()
        measured.accumulate()
        measured.summarize()
    assert measured.stats[0] == pytest.approx(1.0)


def test_coco_boxes_are_corner_and_size():
    (one,) = to_coco(CAR, 5)
    assert one == {"image_id": 5, "category_id": 1, "bbox": [10, 20, 40, 40.5], "score": pytest.approx(0.9)}
    assert to_coco(NOTHING, 5) == []
    with pytest.raises(PizaError, match=r"'a cat' has no category; there are 'a bird'"):
        to_coco(CATS, 5, {"a bird": 1})
