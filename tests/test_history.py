"""The box-history encoder: what its features depend on, and that it learns searches for targets of any size."""

import jax
import numpy as np
import optax
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

from piza_jax.data.search import SearchConfig, progress, search_boxes
from piza_jax.piza.history import HistoryEncoder, box_features
from piza_jax.training.losses import history_losses

BOXES = 6
SEARCH = SearchConfig(max_steps=BOXES - 1)
ALL = np.ones((1, 3), bool)


def area(boxes):
    return np.prod(boxes[..., 2:] - boxes[..., :2], axis=-1)


def draw_searches(seed, count):
    """Boxes so far [N, S, 4], their mask, true progress and stop, and the target's area; of targets of 100..40000 px2.

    Targets and photos are such that a search has two steps or three: where one step suffices, an end may look just like
    the first zoom of a longer search.
    """
    rng = np.random.default_rng(seed)
    boxes, mask = np.zeros((count, BOXES, 4), np.float32), np.zeros((count, BOXES), bool)
    truth = np.zeros((3, count), np.float32)
    row = 0
    while row < count:
        width = np.exp(rng.uniform(np.log(1500), np.log(6000)))
        photo = (int(width), int(width * rng.uniform(0.6, 0.8)))
        side, stretch = np.exp(rng.uniform(np.log(10), np.log(200))), np.exp(rng.uniform(-0.4, 0.4))
        size = np.array([side * stretch, side / stretch])
        if np.sqrt(np.prod(photo)) < 17 * side:
            continue
        low = rng.uniform(0, np.array(photo) - size)
        search = search_boxes(photo, np.concatenate([low, low + size]), rng, SEARCH)
        last = rng.integers(0, len(search))
        boxes[row, : last + 1], mask[row, : last + 1] = search[: last + 1], True
        truth[:, row] = progress(search)[last], last == len(search) - 1, side**2
        row += 1
    return boxes, mask, *truth


def last_box(boxes, mask):
    return boxes[np.arange(len(boxes)), mask.sum(axis=1) - 1]


@pytest.fixture(scope="module")
def untrained():
    return HistoryEncoder(rngs=nnx.Rngs(0))


def read(encoder, boxes, mask):
    return nnx.jit(lambda model, *arrays: model(*arrays))(encoder, np.asarray(boxes, np.float32), mask)


def test_features_are_sizes_and_places_relative_to_the_first_box():
    boxes = np.array([[[0, 0, 400, 200], [100, 50, 300, 150], [100, 100, 150, 140]]], np.float32)
    areas, places = box_features(boxes, ALL)
    np.testing.assert_allclose(areas[0, :, :, 0], [[1, 1], [0.25, 0.25], [0.025, 0.1]], rtol=1e-6)
    expected = [[[1, 1], [0.5, 0.5]], [[0.5, 0.5], [0.5, 0.5]], [[0.125, 0.2], [0.3125, 0.6]]]
    np.testing.assert_allclose(places[0], expected, rtol=1e-6)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.05, 20), st.floats(0.05, 20))
def test_features_do_not_depend_on_the_size_or_the_shape_of_the_photo(seed, wider, taller):
    boxes, mask, *_ = draw_searches(seed, 2)
    scaled = boxes * np.array([wider, taller, wider, taller], np.float32)
    for one, other in zip(box_features(boxes, mask), box_features(scaled, mask), strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-3, atol=1e-7)  # float32 corners of a small box far off


def test_padding_changes_neither_the_reading_nor_the_gradient(untrained):
    boxes, _, *_ = draw_searches(1, 8)
    graph, state = nnx.split(untrained)

    def loss(state, boxes, mask):
        reading = nnx.merge(graph, state, copy=True)(boxes, mask)
        parts = history_losses(reading, np.full(8, 0.3, np.float32), np.ones(8, np.float32))
        return sum(parts.values()), reading

    run = jax.jit(jax.value_and_grad(loss, has_aux=True))
    boxes[:, 1:3] = np.maximum(boxes[:, 1:3], boxes[:, :1] * 0.5)
    (_, plain), plain_gradient = run(state, boxes[:, :3], np.ones((8, 3), bool))
    for filling in (0.0, -7.0, 1e6):
        wide = np.full((8, BOXES, 4), filling, np.float32)
        wide[:, :3] = boxes[:, :3]
        mask = np.broadcast_to(np.arange(BOXES) < 3, (8, BOXES))
        (_, padded), gradient = run(state, wide, mask)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), plain, padded)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), plain_gradient, gradient)


def test_a_search_reads_the_same_alone_and_in_a_batch(untrained):
    boxes, mask, *_ = draw_searches(2, 8)
    together = read(untrained, boxes, mask)
    for row in range(8):
        alone = read(untrained, boxes[row : row + 1], mask[row : row + 1])
        np.testing.assert_allclose(alone.feature[0], together.feature[row], atol=1e-6)
        np.testing.assert_allclose(alone.progress[0], together.progress[row], atol=1e-6)


def test_earlier_boxes_count_and_not_the_last_one_only(untrained):
    boxes = np.array([[[0, 0, 4000, 3000], [1000, 800, 1600, 1400], [1200, 1000, 1240, 1030]]], np.float32)
    other = boxes.copy()
    other[0, 1] = [1190, 990, 1260, 1060]
    one, two = read(untrained, boxes, ALL), read(untrained, other, ALL)
    assert abs(one.feature - two.feature).max() > 1e-2
    assert float(one.progress[0]) != float(two.progress[0])
    np.testing.assert_allclose(np.linalg.norm(one.feature, axis=1), 1, rtol=1e-5)


@pytest.fixture(scope="module")
def trained():
    """An encoder after some seconds on searches for targets of all sizes."""
    graph, state = nnx.split(HistoryEncoder(rngs=nnx.Rngs(0)))
    data, count = draw_searches(3, 2048)[:4], 300
    optimizer = optax.adam(optax.cosine_decay_schedule(3e-3, count))

    def loss(state, boxes, mask, true_progress, stop):
        losses = history_losses(nnx.merge(graph, state, copy=True)(boxes, mask), true_progress, stop)
        return sum(losses.values())

    @jax.jit
    def step(state, moments, batch):
        updates, moments = optimizer.update(jax.grad(loss)(state, *batch), moments, state)
        return optax.apply_updates(state, updates), moments

    moments, rng = optimizer.init(state), np.random.default_rng(0)
    for _ in range(count):
        rows = rng.integers(0, len(data[0]), 128)
        state, moments = step(state, moments, [array[rows] for array in data])
    return nnx.merge(graph, state)


@pytest.mark.parametrize("sizes_px2", [(100, 714), (714, 2000), (2000, 40000)])
def test_it_learns_to_stop_at_targets_of_every_size(trained, sizes_px2):
    boxes, mask, true_progress, stop, target_area = draw_searches(4, 1500)
    reading = read(trained, boxes, mask)
    chosen = (target_area >= sizes_px2[0]) & (target_area < sizes_px2[1])
    assert chosen.sum() > 200
    stops = np.asarray(reading.stop_probability) > 0.5
    assert np.mean(stops[chosen] == stop[chosen]) > 0.95
    assert np.mean(np.abs(reading.progress - true_progress)[chosen]) < 0.05


def test_it_has_not_learnt_a_size_in_pixels(trained):
    """Every search is shown at the scale at which its last box fills 900 square pixels, be it a zoom or a target."""
    boxes, mask, true_progress, stop, _ = draw_searches(5, 1000)
    scaled = boxes * np.sqrt(900 / area(last_box(boxes, mask)))[:, None, None]
    np.testing.assert_allclose(area(last_box(scaled, mask)), 900, rtol=0.02)
    reading = read(trained, scaled, mask)
    assert 0.25 < stop.mean() < 0.75
    assert np.mean((np.asarray(reading.stop_probability) > 0.5) == stop) > 0.95
    assert np.mean(np.abs(reading.progress - true_progress)) < 0.05


def test_progress_is_no_mere_function_of_the_relative_size(trained):
    boxes, mask, true_progress, _, _ = draw_searches(6, 1000)
    zoomed = mask.sum(axis=1) > 1
    shrink = np.log(area(last_box(boxes, mask)) / area(boxes[:, 0]))[zoomed]
    line = np.polyval(np.polyfit(shrink, true_progress[zoomed], 1), shrink)
    error = np.mean(np.abs(read(trained, boxes, mask).progress - true_progress)[zoomed])
    assert error < 0.5 * np.mean(np.abs(line - true_progress[zoomed]))
