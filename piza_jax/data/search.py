"""The search process: from one target box, the boxes of a zoom that ends on it.

The release trains on stored sequences of boxes that it does not publish; this is a generator of them. The released
predictions show what the sequences are like: two steps, the first to a square on the target whose side lies at 0.4 of
the way from the photo's side to the target's, counted in logarithms.
"""

import math
from dataclasses import dataclass

import numpy as np

from piza_jax.errors import PizaError

OVERHANG_PX = 1.0  # annotations are rounded to pixels, so a box may stick out of its photo by this much


@dataclass(frozen=True)
class SearchConfig:
    """How a search zooms. Sides and ratios are of lengths; a box counts with the root of its area.

    Attributes:
        two_step_progress: progress of the zoom box of a search of two steps. A search of T steps has progress
            (t / T) ** e at step t, with e such that (1 / 2) ** e is this number; 0.4 is that of the released model.
        max_step_ratio: how many times smaller one step may get on average; the number of steps is the least that
            reaches the target. 16 gives two steps for ratios above 16 and up to 256, which holds all of SOREC.
        max_steps: upper limit of the number of steps, whatever the ratio.
        min_crop_px: least side of a zoom box (not of the target itself) in photo pixels.
        jitter_place: zoom boxes move by up to this fraction of their side, each axis on its own. Uniform.
        jitter_scale: the logarithm of a zoom box's side changes by up to this much. Uniform.
    """

    two_step_progress: float = 0.4
    max_step_ratio: float = 16.0
    max_steps: int = 5
    min_crop_px: float = 32.0
    jitter_place: float = 0.15
    jitter_scale: float = 0.2

    def __post_init__(self) -> None:
        rules = (
            ("two_step_progress", 0 < self.two_step_progress < 1, "between 0 and 1"),
            ("max_step_ratio", self.max_step_ratio > 1, "above 1"),
            ("max_steps", self.max_steps >= 1, "at least 1"),
            ("min_crop_px", self.min_crop_px >= 1, "at least 1"),
            ("jitter_place", 0 <= self.jitter_place < 0.5, "at least 0 and below 0.5"),
            ("jitter_scale", 0 <= self.jitter_scale < math.inf, "at least 0"),
        )
        for name, good, wanted in rules:
            if not good:
                raise PizaError(f"search.{name} is {getattr(self, name)}; it must be {wanted}")

    @property
    def history_length(self) -> int:
        """Most boxes that a search has, S = max_steps + 1."""
        return self.max_steps + 1


def search_boxes(
    photo_wh: tuple[int, int],
    target_xyxy: np.ndarray | tuple[float, float, float, float],
    rng: np.random.Generator,
    config: SearchConfig,
) -> np.ndarray:
    """Boxes b_0 (whole photo) ... b_T (the target) of one search, with jitter.

    Each box lies wholly in the one before it, and holds the target and the box that ideal_boxes gives for the next
    step, so that the label of a crop is always inside the crop. Zoom boxes are square and inside the photo; one that
    would have to stick out is shifted, and only where the photo (or the box before it) is too narrow for the square
    is its longer side all that stays.

    Args:
        photo_wh: width and height of the photo, pixels.
        target_xyxy: target box, photo pixels.
        rng: source of the jitter; nothing is drawn from it where both jitters are 0 or there is one step.
        config: how to zoom.

    Returns:
        float32 [T + 1, 4] xyxy photo pixels, T in 1..config.max_steps.

    Raises:
        PizaError: the target has no area, is not finite or leaves the photo by more than OVERHANG_PX.
    """
    ideal = ideal_boxes(photo_wh, target_xyxy, config)
    if not (config.jitter_place or config.jitter_scale):
        return ideal
    width, height = photo_wh
    boxes = ideal.astype(np.float64)
    for step in range(len(boxes) - 2, 0, -1):  # from the target outwards: each box is made to hold those inside it
        held = _hull(boxes[step + 1], ideal[step + 1].astype(np.float64))
        size = (ideal[step, 2:] - ideal[step, :2]).astype(np.float64)
        side = float(size.max()) * math.exp(rng.uniform(-config.jitter_scale, config.jitter_scale))
        centre = _centre(boxes[-1]) + side * rng.uniform(-config.jitter_place, config.jitter_place, size=2)
        boxes[step] = _square(centre, max(side, config.min_crop_px), held, width, height)
    return boxes.astype(np.float32)


def ideal_boxes(
    photo_wh: tuple[int, int],
    target_xyxy: np.ndarray | tuple[float, float, float, float],
    config: SearchConfig,
) -> np.ndarray:
    """The same search without jitter: what the model should answer, whatever crop it was given.

    Jitter belongs to the crops that the model sees, not to its labels: a label that moves at random teaches nothing.

    Returns:
        float32 [T + 1, 4] xyxy photo pixels, of the same length as search_boxes gives.

    Raises:
        PizaError: as search_boxes.
    """
    width, height = photo_wh
    target = check_box(target_xyxy, photo_wh)
    photo_side = math.sqrt(width * height)
    ratio = photo_side / math.sqrt(float(np.prod(target[2:] - target[:2])))
    num_steps = _num_steps(ratio, config)
    exponent = math.log(config.two_step_progress) / math.log(0.5)
    boxes = np.empty((num_steps + 1, 4))
    boxes[0], boxes[-1] = (0, 0, width, height), target
    for step in range(num_steps - 1, 0, -1):
        side = photo_side * ratio ** -((step / num_steps) ** exponent)
        boxes[step] = _square(_centre(target), max(side, config.min_crop_px), boxes[step + 1], width, height)
    return boxes.astype(np.float32)


def progress(boxes_xyxy: np.ndarray) -> np.ndarray:
    """How far each box of a search is: p_t = log(A_0 / A_t) / log(A_0 / A_T), from 0 to 1.

    Args:
        boxes_xyxy: [T + 1, 4] in pixels, b_0 ... b_T.

    Returns:
        float32 [T + 1]. Where the target is the whole photo (all areas equal) it is t / T.
    """
    sides = np.diff(np.asarray(boxes_xyxy, np.float64).reshape(-1, 2, 2), axis=1)[:, 0]  # [T + 1, 2]
    shrink = np.log(sides[0].prod() / sides.prod(axis=1))
    if shrink[-1] <= 0:
        return np.linspace(0, 1, len(sides), dtype=np.float32)
    return (shrink / shrink[-1]).astype(np.float32)


def check_box(box_xyxy: np.ndarray | tuple[float, float, float, float], photo_wh: tuple[int, int]) -> np.ndarray:
    """Return a target box as float64 [4] xyxy pixels, its overhang of up to OVERHANG_PX clipped to the photo.

    Raises:
        PizaError: the box has no area, is not finite or leaves the photo by more than OVERHANG_PX.
    """
    box = np.asarray(box_xyxy, np.float64)
    width, height = photo_wh
    named = f"box {[round(float(side), 2) for side in box.ravel()]} (xyxy pixels)"
    if box.shape != (4,) or not np.isfinite(box).all():
        raise PizaError(f"{named} is not four finite numbers; correct the annotation")
    if box[2] <= box[0] or box[3] <= box[1]:
        raise PizaError(f"{named} has no area; correct the annotation or drop the record")
    limits = np.array([width, height, width, height], np.float64)
    if (box < -OVERHANG_PX).any() or (box > limits + OVERHANG_PX).any():
        raise PizaError(
            f"{named} leaves its photo of {width} x {height} pixels; boxes count in stored pixels, "
            "before any EXIF rotation: correct the annotation or drop the record"
        )
    clipped = np.clip(box, 0, limits)
    if clipped[2] <= clipped[0] or clipped[3] <= clipped[1]:
        raise PizaError(f"{named} lies outside its photo of {width} x {height} pixels; correct the annotation")
    return clipped


def _num_steps(ratio: float, config: SearchConfig) -> int:
    wanted = math.ceil(math.log(max(ratio, 1.0)) / math.log(config.max_step_ratio) - 1e-9)
    return min(max(wanted, 1), config.max_steps)


def _centre(box: np.ndarray) -> np.ndarray:
    return (box[:2] + box[2:]) / 2


def _hull(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return np.concatenate([np.minimum(one[:2], other[:2]), np.maximum(one[2:], other[2:])])


def _square(centre: np.ndarray, side: float, held: np.ndarray, width: int, height: int) -> np.ndarray:
    """The square nearest to the one asked for that is inside the photo and holds a box [4]; xyxy."""
    limits = np.array([width, height], np.float64)
    size = np.minimum(max(side, *(held[2:] - held[:2])), limits)
    low = np.clip(centre - size / 2, np.maximum(held[2:] - size, 0), np.minimum(held[:2], limits - size))
    # The sum may round below the held edge; the maximum keeps the box inside all the same.
    return np.concatenate([low, np.minimum(np.maximum(low + size, held[2:]), limits)])
