"""Overlaps and distances of boxes on the host, in float64; boxes are xyxy in pixels."""

import numpy as np


def overlaps(boxes: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """IoU float64 [...] of boxes and targets [..., 4], paired by broadcasting; 0 where neither has an area."""
    boxes, targets = np.asarray(boxes, np.float64), np.asarray(targets, np.float64)
    shared = _shared(boxes, targets)
    union = areas(boxes) + areas(targets) - shared
    return np.divide(shared, union, out=np.zeros(np.broadcast(shared, union).shape), where=union > 0)


def centre_distances(boxes: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distance of the centres of boxes and targets [N, 4]: float64 [N] in pixels, and in widths of the target."""
    boxes, targets = np.asarray(boxes, np.float64), np.asarray(targets, np.float64)
    apart = (boxes[:, :2] + boxes[:, 2:] - targets[:, :2] - targets[:, 2:]) / 2
    pixels = np.hypot(apart[:, 0], apart[:, 1])
    return pixels, pixels / (targets[:, 2] - targets[:, 0])


def shares_inside(targets: np.ndarray, regions: np.ndarray) -> np.ndarray:
    """How much of the area of targets, which is above 0, lies in regions, [N, 4] both: float64 [N], 0..1."""
    return _shared(targets, regions) / areas(targets)


def areas(boxes: np.ndarray) -> np.ndarray:
    """Square pixels [...] of boxes [..., 4]."""
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def _shared(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    low = np.maximum(one[..., :2], other[..., :2])
    high = np.minimum(one[..., 2:], other[..., 2:])
    return np.maximum(high - low, 0).prod(axis=-1)
