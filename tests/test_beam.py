"""The beam zoom and backtracking, with a detector that is wrong at first sight."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from piza_jax.errors import PizaError
from piza_jax.grounder import Grounder
from piza_jax.ops.boxes import iou_and_giou
from piza_jax.piza import beam
from piza_jax.piza.boxes import best_box, best_distinct_boxes, distinct_boxes
from piza_jax.piza.detector import PizaDetector
from piza_jax.piza.paths import start_paths
from piza_jax.piza.zoom import ZoomConfig, changed, zoom
from tests import compilations, fake_detector, figures, tiny_detector
from tests.fake_detector import COLOURS, DecoyDetector, PatchDetector, draw_patches, make_tokenizer

SIZES = [(600, 400), (500, 500), (320, 480), (640, 360), (400, 300), (512, 450), (450, 512), (700, 500)]
CONFIG = ZoomConfig(canvas_hw=(96, 96), min_crop_px=16.0, crop_method="dense")
GREEDY = {"no_target_threshold": 0.5, "path_score": "last"}
WIDE = {**GREEDY, "beam": 2}
TURNING = {"backtrack": 0.5}
BOTH = {"beam": 2, **TURNING}


@pytest.fixture(scope="module")
def tokenizer():
    return make_tokenizer()


@pytest.fixture(scope="module")
def scenes():
    """Photos of eight sizes, sentences, and for each the boxes of the target and of the decoy."""
    drawn = [draw_patches(seed, width, height) for seed, (width, height) in enumerate(SIZES)]
    texts = [f"{COLOURS[i % 3]} patch here" for i in range(len(SIZES))]
    targets = np.array([boxes[COLOURS[i % 3]] for i, (_, boxes) in enumerate(drawn)], np.float32)
    decoys = np.array([boxes[COLOURS[(i + 1) % 3]] for i, (_, boxes) in enumerate(drawn)], np.float32)
    return [photo for photo, _ in drawn], texts, targets, decoys


@pytest.fixture(scope="module")
def ground(tokenizer, scenes):
    """Settings -> the groundings of all scenes in one batch, and their grounder."""

    @functools.cache
    def run(**settings):
        grounder = grounder_of(tokenizer, **settings)
        return grounder.ground(scenes[0], scenes[1]), grounder

    return run


def grounder_of(tokenizer, batch_size=8, kind=DecoyDetector, **settings) -> Grounder:
    ids = tuple(int(tokenizer.encode(colour, 8)[0][1]) for colour in COLOURS)
    config = changed(CONFIG, **settings)
    return Grounder(kind(ids), tokenizer, config, 8, batch_size=batch_size, photo_hw=(700, 700))


def overlap(boxes, targets):
    return np.asarray(iou_and_giou(jnp.asarray(boxes), jnp.asarray(targets))[0])


def test_greedy_ends_on_the_decoy_and_a_beam_of_two_on_the_target(ground, scenes):
    _, _, targets, decoys = scenes
    greedy, wide = [one.box for one in ground(**GREEDY)[0]], [one.box for one in ground(**WIDE)[0]]
    np.testing.assert_allclose(greedy, decoys, atol=4)
    np.testing.assert_allclose(wide, targets, atol=4)
    for one in ground(**WIDE)[0]:
        assert len(one.alternatives) == 1  # the decoy, once, although it is found twice
        assert one.score == pytest.approx(0.95)
        assert one.path_score > one.alternatives[0].path_score


def test_the_views_of_all_paths_are_counted(ground):
    for settings in (WIDE, GREEDY):
        for one in ground(**settings)[0]:
            most = 1 + settings.get("beam", 1) * (CONFIG.max_steps - 1)
            assert len(one.steps) <= one.passes <= most
    # One view of the whole photo, then one of each of two places until both paths have ended.
    assert all(one.passes > len(one.steps) for one in ground(**WIDE)[0])
    assert all(one.passes == len(one.steps) for one in ground(**GREEDY)[0])


def path_of(one):
    """Scores of the boxes of a path: a look that failed is none, and the one before it led to the target from afar."""
    path = []
    for step in one.steps:
        if step.stop_probability == 0:
            path[-1] = 0.7
        else:
            path.append(step.score)
    return path


def test_backtracking_alone_finds_the_target_within_the_same_steps(ground, scenes):
    found, _ = ground(**TURNING)
    np.testing.assert_allclose([one.box for one in found], scenes[2], atol=4)
    for one, decoy, target in zip(found, scenes[3], scenes[2], strict=True):
        first, failed, again = one.steps[:3]
        assert len(one.steps) <= CONFIG.max_steps
        np.testing.assert_allclose(first.box, failed.crop)
        assert overlap([failed.box], [decoy])[0] > 0.4
        assert (failed.score, failed.stop_probability) == (pytest.approx(0.2), 0.0)
        assert overlap([again.box], [target])[0] > 0.4
        assert again.score == pytest.approx(0.95)
        assert one.steps[-1].box == one.box
        assert one.alternatives == ()
        path = path_of(one)
        assert len(path) == len(one.steps) - 1
        assert one.path_score == pytest.approx(np.exp(np.mean(np.log(path))), rel=1e-5)


def test_a_beam_turns_back_by_rule_too(ground, scenes):
    found, _ = ground(mode="training_free", beam=2, backtrack=0.5, path_score="product", max_steps=6)
    for one, target in zip(found, scenes[2], strict=True):
        centre = np.mean(np.reshape(one.box, (2, 2)), axis=0)
        np.testing.assert_allclose(centre, np.mean(np.reshape(target, (2, 2)), axis=0), atol=4)
        assert one.path_score == pytest.approx(np.prod(path_of(one)), rel=1e-5)
        for end in one.alternatives:
            assert overlap([end.box], [one.box])[0] <= CONFIG.nms_iou


def test_the_best_of_a_beam_is_no_worse_than_greedy(ground, scenes):
    for settings in (WIDE, BOTH):
        for one, other, target in zip(ground(**settings)[0], ground(**GREEDY)[0], scenes[2], strict=True):
            ends = [one.box, *(end.box for end in one.alternatives)]
            assert overlap(ends, target).max() >= overlap([other.box], [target])[0]


def test_a_batch_of_eight_sizes_equals_eight_single_runs(tokenizer, ground, scenes):
    single = grounder_of(tokenizer, batch_size=1, **BOTH)
    together, _ = ground(**BOTH)
    for result, photo, text in zip(together, scenes[0], scenes[1], strict=True):
        alone = single.ground(photo, text)
        figures.note("beam: batch of 8 against single runs, pixels", np.abs(np.subtract(alone.box, result.box)).max())
        np.testing.assert_allclose(alone.box, result.box, atol=0.01)
        assert len(alone.steps) == len(result.steps)
        ends, others = ([end.box for end in one.alternatives] for one in (alone, result))
        np.testing.assert_allclose(ends, others, atol=0.01)


def test_nothing_is_compiled_again_for_other_photos(ground, scenes):
    _, grounder = ground(**WIDE)
    fresh = [draw_patches(50 + seed, width, height)[0] for seed, (width, height) in enumerate(reversed(SIZES))]
    assert compilations.during(lambda: grounder.ground(fresh, scenes[1])) == 0


def test_text_is_encoded_once_for_all_paths(ground, scenes):
    _, grounder = ground(**WIDE)
    jax.effects_barrier()
    before = len(fake_detector.TEXT_CALLS)
    grounder.ground(scenes[0], scenes[1])
    jax.effects_barrier()
    assert len(fake_detector.TEXT_CALLS) == before + 1


ROWS: list[int] = []


class RowCounting(DecoyDetector):
    """Writes down of how many views each detection is that is traced."""

    def detect(self, images, valid_hw, text, progress):
        ROWS.append(images.shape[0])
        return super().detect(images, valid_hw, text, progress)


def test_the_whole_photo_is_looked_at_once_for_all_paths(tokenizer, scenes):
    ROWS.clear()
    grounder_of(tokenizer, batch_size=2, kind=RowCounting, **WIDE).ground(scenes[0][:2], scenes[1][:2])
    assert set(ROWS) == {2, 4}
    ROWS.clear()
    grounder_of(tokenizer, batch_size=2, kind=RowCounting, **TURNING).ground(scenes[0][:2], scenes[1][:2])
    assert set(ROWS) == {2}


def test_a_path_score_below_the_threshold_is_no_target(ground, scenes):
    greedy, wide, unjudged = (ground(**settings)[0] for settings in (GREEDY, WIDE, TURNING))
    assert all(one.no_target and one.path_score == pytest.approx(0.2) for one in greedy)
    assert not any(one.no_target for one in wide + unjudged)


def equal_to_greedy(model, photos, photo_hw, text, config):
    """The zoom, having compared it with the beam of one path."""
    graphdef, state = nnx.split(model)

    def run(way):
        program = jax.jit(lambda state, text: way(nnx.merge(graphdef, state), photos, photo_hw, text, config))
        return jax.device_get(program(state, text))

    greedy, one = run(zoom), run(beam.beam_zoom)
    for name in set(greedy._fields) - {"path_score", "beam"}:
        np.testing.assert_array_equal(getattr(greedy, name), getattr(one, name), err_msg=name)
    np.testing.assert_allclose(one.path_score, greedy.path_score, rtol=1e-6)  # sums in another order
    np.testing.assert_array_equal(one.beam.boxes[:, 0], greedy.box)
    return greedy


@pytest.mark.parametrize("mode", ["piza", "training_free"])
def test_a_beam_of_one_is_the_greedy_zoom_bit_for_bit(mode, tokenizer, scenes):
    ids = tuple(int(tokenizer.encode(colour, 8)[0][1]) for colour in COLOURS)
    model, photos, photo_hw = PatchDetector(ids), *stacked(scenes[0][:4])
    text = model.encode_text(*map(np.stack, zip(*(tokenizer.encode(one, 8) for one in scenes[1][:4]), strict=True)))
    result = equal_to_greedy(model, photos, photo_hw, text, changed(CONFIG, mode=mode, path_score="mean_log"))
    assert (result.num_steps > 1).all()


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["piza", "training_free"])
def test_a_beam_of_one_of_the_real_detector_is_the_greedy_zoom(mode, tokenizer, scenes):
    photos, photo_hw = stacked(scenes[0][:2])
    model = real_detector(tokenizer)
    text = model.encode_text(*map(np.stack, zip(*(tokenizer.encode(one, 16) for one in scenes[1][:2]), strict=True)))
    config = ZoomConfig(canvas_hw=(64, 64), max_steps=3, stop_threshold=1.0, mode=mode)
    equal_to_greedy(model, photos, photo_hw, text, config)


@pytest.mark.slow
def test_the_real_detector_follows_a_beam_in_a_batch_like_single_runs(tokenizer, scenes):
    settings = ZoomConfig(canvas_hw=(64, 64), max_steps=3, stop_threshold=1.0, beam=2, backtrack=0.9)
    model = real_detector(tokenizer)
    together = Grounder(model, tokenizer, settings, 16, photo_hw=(700, 700)).ground(scenes[0], scenes[1])
    single = Grounder(model, tokenizer, settings, 16, batch_size=1, photo_hw=(700, 700))
    for result, photo, text in zip(together, scenes[0], scenes[1], strict=True):
        np.testing.assert_allclose(single.ground(photo, text).box, result.box, atol=0.01)


def real_detector(tokenizer):
    return PizaDetector(tiny_detector.model_config(delimiter_ids=tokenizer.delimiter_ids), rngs=nnx.Rngs(3))


def stacked(photos):
    canvas = np.zeros((len(photos), 512, 640, 3), np.uint8)
    for row, photo in enumerate(photos):
        canvas[row, : photo.shape[0], : photo.shape[1]] = photo
    return canvas, np.array([photo.shape[:2] for photo in photos], np.int32)


def test_distinct_boxes_are_those_of_a_plain_suppression():
    rng = np.random.default_rng(0)
    low = rng.uniform(0, 60, (6, 40, 2))
    boxes = np.concatenate([low, low + rng.uniform(10, 40, (6, 40, 2))], axis=2).astype(np.float32)
    values = rng.normal(size=(6, 40)).astype(np.float32)
    values[4, 3:], values[5] = -np.inf, -np.inf
    index, there = jax.device_get(distinct_boxes(jnp.array(values), jnp.array(boxes), 7, 0.3))
    for row in range(6):
        expected = []
        for one in np.argsort(-values[row], kind="stable"):
            apart = all(overlap(boxes[row, one], boxes[row, other]) <= 0.3 for other in expected)
            if apart and (np.isfinite(values[row, one]) or not expected):
                expected.append(one)
        expected = expected[:7]
        assert list(index[row][there[row]]) == expected
    assert there.sum(axis=1).tolist()[-1] == 1


def test_the_first_of_the_distinct_boxes_is_the_best_box():
    rng = np.random.default_rng(1)
    logits = jnp.array(rng.normal(size=(3, 30, 5)), jnp.float32)
    boxes = jnp.array(rng.uniform(0.2, 0.8, (3, 30, 4)), jnp.float32)
    several, scores = best_distinct_boxes(logits, boxes, jnp.full((3, 2), 64.0), 4, 0.5)
    box, score = best_box(logits, boxes)
    np.testing.assert_array_equal(several[:, 0], box)
    np.testing.assert_array_equal(scores[:, 0], score)
    assert (np.diff(scores, axis=1) <= 0).all()


@pytest.mark.parametrize(
    ("ended_at", "expected"),
    [((52.0, 50.0, 92.0, 90.0), [(1, 0), (1, 1)]), ((200.0, 200.0, 240.0, 240.0), [(1, 0), (0, 0)])],
    ids=["at the place of a better box", "elsewhere"],
)
def test_an_ended_path_keeps_its_place_unless_a_better_box_lies_there(ended_at, expected):
    config = ZoomConfig(mode="training_free", beam=2, path_score="last")
    paths = start_paths(DecoyDetector((1, 2, 3)), jnp.array([[0.0, 0.0, 400.0, 300.0]]), config)
    boxes = jnp.array([[ended_at, ended_at], [(50.0, 50.0, 90.0, 90.0), (120.0, 50.0, 160.0, 90.0)]])[None]
    source = paths.before._replace(boxes=boxes, scores=jnp.array([[[0.99, 0.98], [0.9, 0.3]]]))
    paths = paths._replace(
        valid=jnp.ones((1, 2), bool),
        active=jnp.array([[False, True]]),
        step=paths.step._replace(box=boxes[:, :, 0]),
        score=jnp.array([[0.6, 0.8]]),
    )
    choice = jax.device_get(beam._choose(paths, source, config))
    assert list(zip(choice.path[0].tolist(), choice.rank[0].tolist(), strict=True)) == expected
    assert choice.valid.all()


def test_paths_of_one_view_share_out_its_untried_boxes():
    scores = jnp.tile(jnp.array([0.9, 0.8, 0.7, 0.6, 0.5, -jnp.inf]), (1, 3, 1))
    choice = beam._Choice(jnp.array([[0, 2, 0]]), jnp.array([[0, 1, 2]]), jnp.ones((1, 3), bool))
    left = jax.device_get(beam._untried(scores, choice, jnp.array([[True, True, True]])))[0]
    assert [list(np.flatnonzero(np.isfinite(row))) for row in left] == [[1, 4], [0, 2, 3, 4], [3]]
    np.testing.assert_array_equal(left[0, [1, 4]], np.float32([0.8, 0.5]))


@pytest.mark.parametrize(
    ("field", "value"),
    [("beam", 0), ("path_score", "best"), ("nms_iou", 0.0), ("no_target_threshold", 1.5), ("backtrack", -0.1)],
)
def test_settings_without_sense_are_named(field, value):
    with pytest.raises(PizaError, match=f"zoom.{field} is {value!r}"):
        dataclasses.replace(CONFIG, **{field: value})


def test_the_plain_zoom_refuses_a_beam():
    with pytest.raises(PizaError, match="beam_zoom"):
        zoom(DecoyDetector((1, 2, 3)), jnp.zeros((1, 8, 8, 3), jnp.uint8), jnp.ones((1, 2)), None, ZoomConfig(beam=2))
