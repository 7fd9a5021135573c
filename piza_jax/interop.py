"""Results in the forms that other tools take: ``supervision.Detections`` and COCO's results."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from piza_jax.errors import PizaError
from piza_jax.evaluation.save import COCO_CATEGORY
from piza_jax.piza.phrases import PhraseDetections
from piza_jax.piza.results import Grounding

if TYPE_CHECKING:
    import supervision

Found = Grounding | PhraseDetections | Sequence[Grounding]


def to_supervision(found: Found) -> "supervision.Detections":
    """What was found in one photo, for supervision's annotators, trackers and metrics.

    Args:
        found: a Grounding, several of the same photo, or a PhraseDetections.

    Returns:
        N boxes xyxy in photo pixels, confidence [N]; class_id [N] numbers the different words in order of appearance,
        which are in data["class_name"].

    Raises:
        PizaError: supervision is not installed.
    """
    try:
        import supervision
    except ModuleNotFoundError as error:
        raise PizaError("supervision is not installed; pip install supervision") from error
    boxes, scores, labels = _parts(found)
    numbers = {label: number for number, label in enumerate(dict.fromkeys(labels))}
    return supervision.Detections(
        xyxy=boxes,
        confidence=scores,
        class_id=np.array([numbers[label] for label in labels], int),
        data={"class_name": np.array(labels, str)},
    )


def to_coco(found: Found, image_id: int, categories: Mapping[str, int] | None = None) -> list[dict[str, Any]]:
    """What was found in one photo as entries of COCO's results file.

    Args:
        found: a Grounding, several of the same photo, or a PhraseDetections.
        image_id: of the photo.
        categories: label (of a Grounding: its expression) -> category id; None gives all of them category 1.

    Returns:
        One dict a box: image_id, category_id, bbox [x, y, width, height] in photo pixels, score.

    Raises:
        PizaError: a label without a category.
    """
    boxes, scores, labels = _parts(found)
    if categories is not None and (unknown := [label for label in labels if label not in categories]):
        raise PizaError(
            f"the label {unknown[0]!r} has no category; there are {', '.join(map(repr, categories))}: "
            "leave that box out, or give categories=None"
        )
    return [
        {
            "image_id": image_id,
            "category_id": COCO_CATEGORY if categories is None else categories[label],
            "bbox": [float(x0), float(y0), float(x1 - x0), float(y1 - y0)],
            "score": float(score),
        }
        for (x0, y0, x1, y1), score, label in zip(boxes, scores, labels, strict=True)
    ]


def _parts(found: Found) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Boxes float32 [N, 4], scores float32 [N], and words."""
    if isinstance(found, PhraseDetections):
        return np.asarray(found.boxes, np.float32).reshape(-1, 4), np.asarray(found.scores), list(found.labels)
    each = [found] if isinstance(found, Grounding) else list(found)
    boxes = np.array([one.box for one in each], np.float32).reshape(-1, 4)
    return boxes, np.array([one.score for one in each], np.float32), [one.expression for one in each]
