"""Why a grounding is wrong, and whether its decisions to stop were right, read from the steps of its zoom.

A box is right from an overlap (IoU) of 0.5 on. A target is in sight of a region that holds at least half of its area: a
box inside a region that holds less cannot reach an overlap of 0.5, so the zoom is lost from there on.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np

from piza_jax.evaluation.details import RIGHT_IOU
from piza_jax.evaluation.geometry import areas, overlaps, shares_inside
from piza_jax.piza.results import Box, Grounding

STOPPED_TOO_LATE = "stopped too late"
OUTSIDE_FIRST_CROP = "outside the first crop"
LOST_IN_LATER_CROP = "lost in a later crop"
STOPPED_TOO_EARLY = "stopped too early"
LOOSE_BOX = "loose box"
LOOK_ALIKE = "look-alike"
FAILURES = (STOPPED_TOO_LATE, OUTSIDE_FIRST_CROP, LOST_IN_LATER_CROP, STOPPED_TOO_EARLY, LOOSE_BOX, LOOK_ALIKE)
STEPS_UNKNOWN = "steps unknown"

_IN_SIGHT = 0.5
_STILL_A_CROP = 4.0  # area of box over target from which on the box is a place to zoom into, not a loose answer
_NEVER = np.iinfo(np.int64).max


class Judged(NamedTuple):
    """What is said of N groundings.

    Attributes:
        labels: one of FAILURES or STEPS_UNKNOWN for each wrong answer, None for each right one.
        right_stops: int32 [N], decisions to stop or to go on that were right.
        stops: int32 [N], decisions that can be judged.
    """

    labels: list[str | None]
    right_stops: np.ndarray
    stops: np.ndarray


def judge(groundings: Sequence[Grounding], targets: Sequence[Box]) -> Judged:
    """Label wrong answers, and judge the decisions of zooms; of all at once, as files hold many.

    The label of a wrong answer is STEPS_UNKNOWN if it has no steps, otherwise the first of these that holds, causes
    that come early in a zoom before those that can only follow:

    1. STOPPED_TOO_LATE: the box of an earlier step was right, and the zoom went on to a wrong one.
    2. OUTSIDE_FIRST_CROP: the target is not in sight of the first crop. The first step looks at the whole photo, which
       holds every target; the first crop is where the second step looks. (Steps that start from a part of the photo
       which does not hold the target have this label too.)
    3. LOST_IN_LATER_CROP: it is not in sight of a crop after that one.
    4. STOPPED_TOO_EARLY: the final box has the target in sight and at least four times its area. It is a box to zoom
       into; the zoom ended, by its own decision or at its limit of steps.
    5. LOOSE_BOX: the box is at the right place, the centre of one of the two lies in the other, but too large, too
       small or shifted.
    6. LOOK_ALIKE: the box is on something else, with the target in sight of every crop.

    After each step a zoom stops (after the last one, be it by its limit) or goes on. Where the box of the step is
    right, to stop is right. Where it is wrong and the target is in sight of where the zoom looks next (after the last
    step: of its box), to go on is right. Where it is wrong and the target is out of sight, neither helps: the decision
    is not counted.

    Args:
        groundings: boxes and steps, xyxy photo pixels; no steps: unknown.
        targets: the true box of each, photo pixels, of some area.
    """
    count = len(groundings)
    boxes, goals = _corners([one.box for one in groundings]), _corners(targets)
    lengths = np.array([len(one.steps) for one in groundings], np.int64)
    owner = np.repeat(np.arange(count), lengths)  # the grounding of each step
    ends = np.cumsum(lengths)
    number = np.arange(len(owner)) - (ends - lengths)[owner]
    last = number == lengths[owner] - 1
    crops = _corners([step.crop for one in groundings for step in one.steps])
    found = _corners([step.box for one in groundings for step in one.steps])
    step_right = _right(found, goals[owner])
    crop_in_sight = _in_sight(goals[owner], crops)

    ahead = np.where(last, _in_sight(goals[owner], found), np.roll(crop_in_sight, -1))
    judged = step_right | ahead
    stops = np.bincount(owner[judged], minlength=count)
    right_stops = np.bincount(owner[judged & (step_right == last)], minlength=count)

    first_lost = np.full(count, _NEVER)
    np.minimum.at(first_lost, owner[~crop_in_sight], number[~crop_in_sight])
    causes = {
        STEPS_UNKNOWN: lengths == 0,
        STOPPED_TOO_LATE: np.bincount(owner[step_right & ~last], minlength=count) > 0,
        OUTSIDE_FIRST_CROP: first_lost <= 1,
        LOST_IN_LATER_CROP: first_lost < _NEVER,
        STOPPED_TOO_EARLY: _in_sight(goals, boxes) & (areas(boxes) >= _STILL_A_CROP * areas(goals)),
        LOOSE_BOX: _centre_inside(boxes, goals) | _centre_inside(goals, boxes),
        LOOK_ALIKE: np.ones(count, bool),
    }
    names = [None, *causes]
    first = np.argmax(np.stack([_right(boxes, goals), *causes.values()]), axis=0)
    return Judged([names[i] for i in first.tolist()], right_stops.astype(np.int32), stops.astype(np.int32))


def count_failures(labels: Iterable[str | None]) -> dict[str, int]:
    """How often each of FAILURES occurs, in that order; other labels, and right answers (None), are left out."""
    counts: Mapping[str | None, int] = Counter(labels)
    return {name: counts.get(name, 0) for name in FAILURES}


def _corners(boxes: Sequence[Box]) -> np.ndarray:
    return np.fromiter(chain.from_iterable(boxes), np.float64, 4 * len(boxes)).reshape(-1, 4)


def _right(boxes: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """bool [N], in float32 as Acc50 has it."""
    return overlaps(boxes, targets).astype(np.float32) >= np.float32(RIGHT_IOU)


def _in_sight(targets: np.ndarray, regions: np.ndarray) -> np.ndarray:
    """bool [N], whether a region holds enough of the target for a box inside it to be right."""
    return shares_inside(targets, regions) >= _IN_SIGHT


def _centre_inside(ones: np.ndarray, others: np.ndarray) -> np.ndarray:
    centre = (ones[:, :2] + ones[:, 2:]) / 2
    return ((others[:, :2] <= centre) & (centre <= others[:, 2:])).all(axis=1)
