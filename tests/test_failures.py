"""Constructed zooms for every failure label, for their order, and for the judgement of stops."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from piza_jax.evaluation import failures
from piza_jax.evaluation.geometry import overlaps
from piza_jax.piza.results import Grounding, Step

WHOLE = (0.0, 0.0, 4000.0, 3000.0)
TARGET = (1000.0, 1000.0, 1040.0, 1020.0)
AROUND = (900.0, 900.0, 1200.0, 1200.0)  # a good crop
CLOSER = (980.0, 980.0, 1070.0, 1070.0)
ELSEWHERE = (3000.0, 2000.0, 3300.0, 2300.0)
HALF = (1020.0, 900.0, 1200.0, 1200.0)  # holds exactly half of the target
LESS = (1021.0, 900.0, 1200.0, 1200.0)
OTHER = (1100.0, 1100.0, 1140.0, 1120.0)  # inside AROUND, not on the target
LOOSE = (990.0, 990.0, 1050.0, 1040.0)  # 3.75 times the target
TIGHT = (1015.0, 1005.0, 1030.0, 1018.0)


def zoom(*crops_and_boxes):
    steps = tuple(Step(crop, box, 0.5, 0.0, 0.0) for crop, box in crops_and_boxes)
    return Grounding("the thing", steps[-1].box, 0.5, steps)


CASES = {
    "right": (zoom((WHOLE, AROUND), (AROUND, TARGET)), None, (2, 2)),
    "right after a detour": (zoom((WHOLE, TARGET), (AROUND, OTHER), (AROUND, TARGET)), None, (2, 3)),
    "first crop elsewhere": (zoom((WHOLE, ELSEWHERE), (ELSEWHERE, ELSEWHERE)), failures.OUTSIDE_FIRST_CROP, (0, 0)),
    "first crop cuts the target": (zoom((WHOLE, LESS), (LESS, OTHER)), failures.OUTSIDE_FIRST_CROP, (0, 0)),
    "the start itself is elsewhere": (zoom((ELSEWHERE, ELSEWHERE)), failures.OUTSIDE_FIRST_CROP, (0, 0)),
    "lost in the second crop": (
        zoom((WHOLE, AROUND), (AROUND, OTHER), (OTHER, OTHER)),
        failures.LOST_IN_LATER_CROP,
        (1, 1),
    ),
    "lost in the third crop": (
        zoom((WHOLE, AROUND), (AROUND, CLOSER), (CLOSER, OTHER), (OTHER, OTHER)),
        failures.LOST_IN_LATER_CROP,
        (2, 2),
    ),
    "loose": (zoom((WHOLE, AROUND), (AROUND, LOOSE)), failures.LOOSE_BOX, (1, 2)),
    "tight": (zoom((WHOLE, AROUND), (AROUND, TIGHT)), failures.LOOSE_BOX, (1, 1)),
    "look-alike": (zoom((WHOLE, AROUND), (AROUND, OTHER)), failures.LOOK_ALIKE, (1, 1)),
    "look-alike at once": (zoom((WHOLE, ELSEWHERE)), failures.LOOK_ALIKE, (0, 0)),
    "look-alike with half of the target in sight": (zoom((WHOLE, HALF), (HALF, OTHER)), failures.LOOK_ALIKE, (1, 1)),
    "early": (zoom((WHOLE, AROUND)), failures.STOPPED_TOO_EARLY, (0, 1)),
    "early after two": (zoom((WHOLE, AROUND), (AROUND, CLOSER)), failures.STOPPED_TOO_EARLY, (1, 2)),
    "late": (zoom((WHOLE, TARGET), (AROUND, OTHER)), failures.STOPPED_TOO_LATE, (0, 1)),
    # Each of the next has the cause of its label and of one below it.
    "late before lost": (zoom((WHOLE, TARGET), (LESS, OTHER)), failures.STOPPED_TOO_LATE, (0, 1)),
    "outside before lost again": (
        zoom((WHOLE, LESS), (LESS, LESS), (ELSEWHERE, ELSEWHERE)),
        failures.OUTSIDE_FIRST_CROP,
        (0, 0),
    ),
    "lost before early": (
        zoom((WHOLE, AROUND), (AROUND, OTHER), (OTHER, AROUND)),
        failures.LOST_IN_LATER_CROP,
        (1, 2),
    ),
    "early before loose": (zoom((WHOLE, (980.0, 980.0, 1060.0, 1040.0))), failures.STOPPED_TOO_EARLY, (0, 1)),
}


@pytest.mark.parametrize("name", CASES)
def test_constructed_zooms(name):
    grounding, label, stops = CASES[name]
    judged = failures.judge([grounding], [TARGET])
    assert judged.labels == [label]
    assert (judged.right_stops.tolist(), judged.stops.tolist()) == ([stops[0]], [stops[1]])


def test_many_zooms_at_once_and_answers_without_steps():
    groundings = [grounding for grounding, _, _ in CASES.values()]
    groundings.insert(3, Grounding("the thing", OTHER, 0.5, ()))
    groundings.append(Grounding("the thing", TARGET, 0.5, ()))
    judged = failures.judge(groundings, [TARGET] * len(groundings))
    labels = [label for _, label, _ in CASES.values()]
    assert judged.labels == [*labels[:3], failures.STEPS_UNKNOWN, *labels[3:], None]
    stops = [stops for _, _, stops in CASES.values()]
    stops = [*stops[:3], (0, 0), *stops[3:], (0, 0)]
    np.testing.assert_array_equal(np.stack([judged.right_stops, judged.stops], axis=1), stops)
    nothing = failures.judge(groundings[-1:], [TARGET])
    assert (nothing.labels, nothing.stops.tolist()) == ([None], [0])


def test_every_label_is_constructed_and_counted():
    groundings = [grounding for grounding, _, _ in CASES.values()]
    counts = failures.count_failures(failures.judge(groundings, [TARGET] * len(CASES)).labels)
    labels = [label for _, label, _ in CASES.values()]
    assert counts == {name: labels.count(name) for name in failures.FAILURES}
    assert min(counts.values()) > 0
    assert sum(counts.values()) == len(CASES) - 2


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 5))
def test_wrong_answers_and_only_they_have_a_label(seed, count):
    rng = np.random.default_rng(seed)

    def box():
        corner, size = rng.uniform(960, 1060, 2), 10 ** rng.uniform(1, 2.3, 2)
        return (*map(float, corner), *map(float, corner + size))

    grounding = zoom((WHOLE, box()), *((box(), box()) for _ in range(count - 1)))
    judged = failures.judge([grounding], [TARGET])
    (label,) = judged.labels
    assert (label is None) == bool(overlaps(np.array(grounding.box), np.array(TARGET)) >= 0.5)
    assert label is None or label in failures.FAILURES
    assert 0 <= judged.right_stops[0] <= judged.stops[0] <= count
