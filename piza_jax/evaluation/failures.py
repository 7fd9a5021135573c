"""Why a grounding is wrong, and whether its decisions to stop were right, read from the steps of its zoom.

A box is right from an overlap (IoU) of 0.5 on. A target is in sight of a region that holds at least half of its area: a
box inside a region that holds less cannot reach an overlap of 0.5, so the zoom is lost from there on.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from piza_jax.evaluation.details import RIGHT_IOU
from piza_jax.evaluation.geometry import area, overlap, share_inside
from piza_jax.piza.results import Box, Grounding, Step

STOPPED_TOO_LATE = "stopped too late"
OUTSIDE_FIRST_CROP = "outside the first crop"
LOST_IN_LATER_CROP = "lost in a later crop"
STOPPED_TOO_EARLY = "stopped too early"
LOOSE_BOX = "loose box"
LOOK_ALIKE = "look-alike"
FAILURES = (STOPPED_TOO_LATE, OUTSIDE_FIRST_CROP, LOST_IN_LATER_CROP, STOPPED_TOO_EARLY, LOOSE_BOX, LOOK_ALIKE)

_IN_SIGHT = 0.5
_STILL_A_CROP = 4.0  # area of box over target from which on the box is a place to zoom into, not a loose answer


def failure(grounding: Grounding, target_xyxy: Box) -> str | None:
    """The one label of a wrong answer; None where the box is right.

    The first of these that holds, causes that come early in a zoom before those that can only follow:

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

    Args:
        grounding: box and steps, xyxy photo pixels.
        target_xyxy: the true box, photo pixels.
    """
    box, steps = grounding.box, grounding.steps
    if overlap(box, target_xyxy) >= RIGHT_IOU:
        return None
    if any(overlap(step.box, target_xyxy) >= RIGHT_IOU for step in steps[:-1]):
        return STOPPED_TOO_LATE
    lost = next((number for number, step in enumerate(steps) if not in_sight(target_xyxy, step.crop)), None)
    if lost is not None:
        return OUTSIDE_FIRST_CROP if lost <= 1 else LOST_IN_LATER_CROP
    if in_sight(target_xyxy, box) and area(box) >= _STILL_A_CROP * area(target_xyxy):
        return STOPPED_TOO_EARLY
    if _centre_inside(box, target_xyxy) or _centre_inside(target_xyxy, box):
        return LOOSE_BOX
    return LOOK_ALIKE


def judge_stops(steps: Sequence[Step], target_xyxy: Box) -> tuple[int, int]:
    """Decisions of a zoom to stop or to go on: how many were right, and how many can be judged.

    After each step the zoom stops (after the last one, be it by its limit) or goes on. Where the box of the step is
    right, to stop is right. Where it is wrong and the target is in sight of where the zoom looks next (after the last
    step: of its box), to go on is right. Where it is wrong and the target is out of sight, neither helps: the decision
    is not counted.
    """
    right = judged = 0
    for number, step in enumerate(steps):
        stopped = number == len(steps) - 1
        should_stop = overlap(step.box, target_xyxy) >= RIGHT_IOU
        if should_stop or in_sight(target_xyxy, step.box if stopped else steps[number + 1].crop):
            judged += 1
            right += should_stop == stopped
    return right, judged


def count_failures(labels: Iterable[str | None]) -> dict[str, int]:
    """How often each of FAILURES occurs, in that order; right answers (None) are left out."""
    counts: Mapping[str | None, int] = Counter(labels)
    return {name: counts.get(name, 0) for name in FAILURES}


def in_sight(target_xyxy: Box, region_xyxy: Box) -> bool:
    """Whether a region holds enough of the target for a box inside it to be right."""
    return share_inside(target_xyxy, region_xyxy) >= _IN_SIGHT


def _centre_inside(one: Box, other: Box) -> bool:
    x, y = (one[0] + one[2]) / 2, (one[1] + one[3]) / 2
    return other[0] <= x <= other[2] and other[1] <= y <= other[3]
