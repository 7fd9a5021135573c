"""The search process: its boxes are nested, exact at both ends, seeded, and like those of the released model."""

import itertools
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from piza_jax import PizaError
from piza_jax.data.search import SearchConfig, check_box, ideal_boxes, progress, search_boxes

STEADY = SearchConfig(jitter_place=0.0, jitter_scale=0.0)

# photo (W, H), side of the drawn first zoom box, box that it is meant to end on (x y w h): sorec/README.md. The third
# target is the label; the released model's own final box is narrower.
RELEASED = [
    ((2560, 1920), (746, 1220, 402, 401), (933, 1408, 26, 30)),
    ((4000, 3000), (1043, 1346, 633, 630), (1337, 1637, 43, 45)),
    ((2048, 1536), (1412, 506, 374, 379), (1587, 666, 21, 59)),
]


def xyxy(box):
    return np.array([box[0], box[1], box[0] + box[2], box[1] + box[3]], np.float32)


@st.composite
def searches(draw):
    width, height = draw(st.integers(8, 6000)), draw(st.integers(8, 6000))
    w = draw(st.floats(1, width, width=32))
    h = draw(st.floats(1, height, width=32))
    x = draw(st.floats(0, 1)) * (width - w)
    y = draw(st.floats(0, 1)) * (height - h)
    target = np.minimum(np.array([x, y, x + w, y + h], np.float32), np.float32([width, height, width, height]))
    config = SearchConfig(
        two_step_progress=draw(st.floats(0.1, 0.9)),
        max_step_ratio=draw(st.floats(1.5, 40)),
        max_steps=draw(st.integers(1, 7)),
        min_crop_px=draw(st.floats(1, 100)),
        jitter_place=draw(st.floats(0, 0.49)),
        jitter_scale=draw(st.floats(0, 1)),
    )
    return (width, height), target, draw(st.integers(0, 2**32 - 1)), config


def holds(outer, inner):
    return bool((outer[:2] <= inner[:2]).all() and (outer[2:] >= inner[2:]).all())


@settings(max_examples=300, deadline=None)
@given(searches())
def test_search_goes_from_the_whole_photo_to_the_exact_target_by_nested_boxes(search):
    photo_wh, target, seed, config = search
    boxes = search_boxes(photo_wh, target, np.random.default_rng(seed), config)
    assert boxes.dtype == np.float32
    assert 2 <= len(boxes) <= config.history_length
    np.testing.assert_array_equal(boxes[0], [0, 0, *photo_wh])
    np.testing.assert_array_equal(boxes[-1], target)
    for outer, inner in itertools.pairwise(boxes):
        assert holds(outer, inner)
    assert ((boxes[:, 2:] - boxes[:, :2]) > 0).all()


@settings(max_examples=300, deadline=None)
@given(searches())
def test_every_label_lies_inside_the_jittered_crop_before_it(search):
    photo_wh, target, seed, config = search
    boxes = search_boxes(photo_wh, target, np.random.default_rng(seed), config)
    labels = ideal_boxes(photo_wh, target, config)
    assert len(labels) == len(boxes)
    for crop, label in zip(boxes, labels[1:], strict=False):
        assert holds(crop, label)


@settings(max_examples=300, deadline=None)
@given(searches())
def test_zoom_boxes_are_square_unless_the_photo_is_too_narrow(search):
    photo_wh, target, seed, config = search
    boxes = search_boxes(photo_wh, target, np.random.default_rng(seed), config)
    for box in boxes[1:-1].astype(np.float64):
        width, height = box[2:] - box[:2]
        longest = max(width, height)
        slack = 2e-3
        assert abs(width - min(longest, photo_wh[0])) <= slack
        assert abs(height - min(longest, photo_wh[1])) <= slack


@settings(max_examples=300, deadline=None)
@given(searches())
def test_progress_rises_from_zero_to_one(search):
    photo_wh, target, seed, config = search
    values = progress(search_boxes(photo_wh, target, np.random.default_rng(seed), config))
    assert values.dtype == np.float32
    assert values[0] == 0
    assert values[-1] == 1
    assert (np.diff(values) >= 0).all()


@settings(max_examples=50, deadline=None)
@given(searches())
def test_same_seed_gives_same_boxes(search):
    photo_wh, target, seed, config = search
    first, second = (search_boxes(photo_wh, target, np.random.default_rng(seed), config) for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_other_seeds_give_other_zoom_boxes_around_the_target():
    target = xyxy((1337, 1637, 43, 45))
    zooms = np.stack(
        [search_boxes((4000, 3000), target, np.random.default_rng(s), SearchConfig())[1] for s in range(400)]
    )
    sides = zooms[:, 2] - zooms[:, 0]
    shift = ((zooms[:, :2] + zooms[:, 2:]) - (target[:2] + target[2:])) / 2 / sides[:, None]
    ideal = ideal_boxes((4000, 3000), target, SearchConfig())[1]
    change = np.log(sides / (ideal[2] - ideal[0]))
    for values, limit in ((shift[:, 0], 0.15), (shift[:, 1], 0.15), (change, 0.2)):
        assert abs(values).max() <= limit + 1e-4
        assert values.max() > 0.9 * limit
        assert values.min() < -0.9 * limit
        assert abs(values.mean()) < 0.15 * limit


@pytest.mark.parametrize(("photo_wh", "zoom", "target"), RELEASED)
def test_default_search_gives_the_released_models_zoom_boxes(photo_wh, zoom, target):
    boxes = search_boxes(photo_wh, xyxy(target), np.random.default_rng(0), STEADY)
    assert len(boxes) == 3
    assert progress(boxes)[1] == pytest.approx(0.4, abs=1e-6)
    drawn = xyxy(zoom)
    assert boxes[1, 2] - boxes[1, 0] == pytest.approx(np.sqrt(zoom[2] * zoom[3]), rel=0.05)
    np.testing.assert_allclose((boxes[1, :2] + boxes[1, 2:]) / 2, (drawn[:2] + drawn[2:]) / 2, atol=4)


def test_progress_follows_the_configured_first_step():
    boxes = search_boxes((4000, 3000), xyxy((1000, 1000, 40, 40)), np.random.default_rng(0), STEADY)
    assert progress(boxes)[1] == pytest.approx(0.4, abs=1e-5)
    other = SearchConfig(two_step_progress=0.5, max_step_ratio=5.0, jitter_place=0.0, jitter_scale=0.0)
    boxes = search_boxes((4000, 3000), xyxy((1500, 1500, 40, 40)), np.random.default_rng(0), other)
    np.testing.assert_allclose(progress(boxes), [0, 1 / 3, 2 / 3, 1], atol=1e-5)


@pytest.mark.parametrize(("side", "num_steps"), [(640, 1), (63, 1), (62, 2), (4, 2), (3, 3)])
def test_number_of_steps_follows_the_size_ratio(side, num_steps):
    boxes = search_boxes((1000, 1000), (0, 0, side, side), np.random.default_rng(0), SearchConfig())
    assert len(boxes) == num_steps + 1


def test_number_of_steps_never_passes_its_limit():
    config = SearchConfig(max_steps=2)
    boxes = search_boxes((6000, 6000), (9, 9, 10, 10), np.random.default_rng(0), config)
    assert len(boxes) == 3


def test_target_that_fills_the_photo_is_one_step():
    boxes = search_boxes((640, 480), (0, 0, 640, 480), np.random.default_rng(0), SearchConfig())
    np.testing.assert_array_equal(boxes, [[0, 0, 640, 480]] * 2)
    np.testing.assert_array_equal(progress(boxes), [0, 1])


def test_zoom_box_at_a_corner_is_shifted_and_stays_square():
    boxes = search_boxes((4000, 3000), (3960, 0, 4000, 30), np.random.default_rng(0), STEADY)
    zoom = boxes[1]
    assert zoom[2] == 4000
    assert zoom[1] == 0
    assert zoom[2] - zoom[0] == pytest.approx(zoom[3] - zoom[1])


def test_overhang_of_a_pixel_is_clipped():
    np.testing.assert_array_equal(check_box((630, 470, 640.5, 481), (640, 480)), [630, 470, 640, 480])


@pytest.mark.parametrize(
    ("box", "message"),
    [
        ((10, 10, 10, 20), "no area"),
        ((10, 20, 30, 10), "no area"),
        ((10, 10, np.nan, 20), "not four finite"),
        ((10, 10, 20), "not four finite"),
        ((600, 400, 660, 420), "leaves its photo of 640 x 480"),
        ((-5, 10, 20, 20), "leaves its photo of 640 x 480"),
        ((640, 10, 641, 20), "outside its photo"),
    ],
)
def test_bad_box_is_an_error_that_shows_it(box, message):
    with pytest.raises(PizaError, match=message):
        search_boxes((640, 480), box, np.random.default_rng(0), SearchConfig())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("two_step_progress", 1.0),
        ("max_step_ratio", 1.0),
        ("max_steps", 0),
        ("min_crop_px", 0.5),
        ("jitter_place", 0.5),
        ("jitter_scale", -0.1),
    ],
)
def test_impossible_setting_is_an_error_that_names_it(name, value):
    with pytest.raises(PizaError, match=rf"search\.{name}"):
        SearchConfig(**{name: value})


def test_nearly_all_real_records_take_two_steps(shared_dir):
    records = json.loads((shared_dir / "sorec" / "val.json").read_text(encoding="utf-8"))
    rng = np.random.default_rng(0)
    lengths = []
    for record in records:
        target = xyxy(record["bbox"])
        # The annotations hold no photo sizes: the most common aspect, as small as the box allows, from 2048 up.
        scale = max(1.0, target[2] / 2048, target[3] / 1536)
        photo_wh = (int(np.ceil(2048 * scale)), int(np.ceil(1536 * scale)))
        boxes = search_boxes(photo_wh, target, rng, SearchConfig())
        np.testing.assert_array_equal(boxes[-1], target)
        lengths.append(len(boxes) - 1)
    assert np.mean(np.array(lengths) == 2) > 0.999
