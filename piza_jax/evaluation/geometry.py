"""Overlaps and distances of boxes on the host, in float64; boxes are xyxy in pixels."""

from collections.abc import Sequence

import numpy as np

Corners = Sequence[float]


def overlaps(boxes: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """IoU float64 [...] of boxes and targets [..., 4], paired by broadcasting; 0 where neither has an area."""
    boxes, targets = np.asarray(boxes, np.float64), np.asarray(targets, np.float64)
    shared = _shared(boxes, targets)
    union = _areas(boxes) + _areas(targets) - shared
    return np.divide(shared, union, out=np.zeros(np.broadcast(shared, union).shape), where=union > 0)


def centre_distances(boxes: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distance of the centres of boxes and targets [N, 4]: float64 [N] in pixels, and in widths of the target."""
    boxes, targets = np.asarray(boxes, np.float64), np.asarray(targets, np.float64)
    apart = (boxes[:, :2] + boxes[:, 2:] - targets[:, :2] - targets[:, 2:]) / 2
    pixels = np.hypot(apart[:, 0], apart[:, 1])
    return pixels, pixels / (targets[:, 2] - targets[:, 0])


def overlap(box: Corners, target: Corners) -> float:
    """IoU of two boxes, 0..1; 0 where neither has an area. Without arrays, as zooms have too many single boxes."""
    shared = _shared_area(box, target)
    union = area(box) + area(target) - shared
    return shared / union if union > 0 else 0.0


def share_inside(target: Corners, region: Corners) -> float:
    """How much of the target's area, which is above 0, lies in a region, 0..1."""
    return _shared_area(target, region) / area(target)


def area(box: Corners) -> float:
    """Square pixels of one box."""
    return (box[2] - box[0]) * (box[3] - box[1])


def _shared_area(one: Corners, other: Corners) -> float:
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    return width * height if width > 0 and height > 0 else 0.0


def _areas(boxes: np.ndarray) -> np.ndarray:
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def _shared(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    low = np.maximum(one[..., :2], other[..., :2])
    high = np.minimum(one[..., 2:], other[..., 2:])
    return np.maximum(high - low, 0).prod(axis=-1)
