"""Grounding in slices, with a detector that finds a coloured patch by its pixels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from piza_jax.data.preprocess import Preprocessing
from piza_jax.errors import PizaError
from piza_jax.evaluation import evaluate
from piza_jax.evaluation.baselines import SliceGrounder
from piza_jax.evaluation.methods import Slicing, method_of
from piza_jax.ops.images import normalise
from piza_jax.piza.boxes import best_box
from piza_jax.piza.grounding import Grounder
from piza_jax.piza.zoom import ZoomConfig
from tests import compilations, fake_detector
from tests.fake_detector import COLOURS, Found, PatchDetector, draw_patches, make_tokenizer

SIZES = [(600, 400), (500, 500), (320, 480), (60, 50), (700, 300)]
CANVAS = (64, 64)
DETECT_CALLS = []  # the batch size of each run of the detector


class CountingDetector(PatchDetector):
    """Counts its runs; a view without any pixel of the colour has a box and a low score."""

    def detect(self, images, valid_hw, text, progress=None):
        jax.debug.callback(lambda: DETECT_CALLS.append(len(images)))
        found = super().detect(images, valid_hw, text, progress)
        return Found(found.logits, jnp.where(jnp.isfinite(found.boxes), found.boxes, 0.5))


class BrokenDetector(PatchDetector):
    def detect(self, images, valid_hw, text, progress=None):
        found = super().detect(images, valid_hw, text, progress)
        return Found(found.logits * jnp.nan, jnp.nan_to_num(found.boxes))


@pytest.fixture(scope="module")
def tokenizer():
    return make_tokenizer()


def model_of(tokenizer, kind=CountingDetector):
    return kind(tuple(int(tokenizer.encode(colour, 8)[0][1]) for colour in COLOURS), margin=0.0)


def slice_grounder(tokenizer, word, kind=CountingDetector, crop_method="dense", **options) -> SliceGrounder:
    slicing, zoom = method_of(word).slicing, ZoomConfig(canvas_hw=CANVAS, crop_method=crop_method)
    return SliceGrounder(model_of(tokenizer, kind), tokenizer, slicing, zoom, 8, **options)


@pytest.fixture(scope="module")
def scenes():
    drawn = [draw_patches(seed, width, height, 6) for seed, (width, height) in enumerate(SIZES)]
    colours = [COLOURS[seed % 3] for seed in range(len(SIZES))]
    texts = [f"{colour} patch here" for colour in colours]
    return (
        [photo for photo, _ in drawn],
        texts,
        [boxes[colour] for (_, boxes), colour in zip(drawn, colours, strict=True)],
    )


WORDS = ["sliding:96:0.25", "grid:6x7", "sliding:96x80:0.2:full:nms:iou=0.5"]


@pytest.fixture(scope="module")
def grounders(tokenizer):
    ways = ("dense", "rows", "dense")
    return {word: slice_grounder(tokenizer, word, crop_method=way) for word, way in zip(WORDS, ways, strict=True)}


def count_detections(run):
    jax.effects_barrier()
    DETECT_CALLS.clear()
    result = run()
    jax.effects_barrier()
    return result, sum(DETECT_CALLS)


def one_by_one(tokenizer, photo, text, slicing: Slicing):
    """Score, box and slice of each slice's best, best first, by a plain loop over slices that Pillow cuts."""
    model = model_of(tokenizer)
    ids, mask = (array[None] for array in tokenizer.encode(text, 8))
    features = model.encode_text(ids, mask)
    found = []
    for x0, y0, x1, y1 in slicing.boxes((photo.shape[1], photo.shape[0])).tolist():
        scale = min(CANVAS[1] / (x1 - x0), CANVAS[0] / (y1 - y0))
        size = [max(int((high - low) * scale + 0.5), 1) for low, high in ((x0, x1), (y0, y1))]
        pixels = Image.fromarray(photo).resize(size, Image.Resampling.BILINEAR, box=(x0, y0, x1, y1))
        view = np.zeros((1, *CANVAS, 3), np.uint8)
        view[0, : size[1], : size[0]] = pixels
        valid_hw = jnp.array([size[::-1]])
        detections = model.detect(normalise(jnp.array(view), valid_hw), valid_hw, features)
        box, score = best_box(detections.logits[-1], detections.boxes[-1])
        (x, y, w, h), sides = np.asarray(box[0]), (x1 - x0, y1 - y0)
        low, high = np.clip([x - w / 2, y - h / 2], 0, 1), np.clip([x + w / 2, y + h / 2], 0, 1)
        found.append((float(score[0]), [*(low * sides + [x0, y0]), *(high * sides + [x0, y0])], [x0, y0, x1, y1]))
    return sorted(found, key=lambda one: -one[0])


@pytest.mark.parametrize("word", WORDS)
def test_results_are_those_of_a_plain_loop(tokenizer, grounders, scenes, word):
    slicing = method_of(word).slicing
    for photo, text, found in zip(*scenes[:2], grounders[word].ground(*scenes[:2]), strict=True):
        best = one_by_one(tokenizer, photo, text, slicing)
        assert found.score == pytest.approx(best[0][0], abs=0.02)  # a level of the crop is 0.02 in the logit
        # Slices that overlap may show the patch equally well; a level decides which wins.
        equal = [one for one in best if one[0] > best[0][0] - 0.02]
        (step,) = found.steps
        places = [slice_ for _, _, slice_ in equal]
        assert list(step.crop) in places
        np.testing.assert_allclose(found.box, equal[places.index(list(step.crop))][1], rtol=0, atol=1)


def errors_of(found, boxes):
    return [float(abs(np.subtract(one.box, box)).max()) for one, box in zip(found, boxes, strict=True)]


@pytest.fixture(scope="module")
def big_scenes():
    """Patches of 6 pixels in photos that a single pass shrinks eleven times."""
    drawn = [draw_patches(seed, 690, 650, 6) for seed in range(20, 24)]
    return [photo for photo, _ in drawn], ["green patch here"] * 4, [boxes["green"] for _, boxes in drawn]


@pytest.mark.parametrize("word", ["sliding:64:0.25:nmm:min_score=0.9", "sliding:64:0.25:full:nmm:min_score=0.9"])
def test_sliding_windows_find_what_a_single_pass_cannot_see(tokenizer, big_scenes, word):
    photos, texts, boxes = (part[:2] for part in big_scenes)  # some two hundred windows each
    view = Preprocessing.for_canvas(CANVAS)
    once = Grounder(model_of(tokenizer), tokenizer, max_tokens=8, single_pass=True, preprocessing=view)
    assert min(errors_of(once.ground(photos, texts), boxes)) > 2
    # Windows and canvas are of one size here, so pixels and boxes are exact.
    assert max(errors_of(slice_grounder(tokenizer, word).ground(photos, texts), boxes)) < 0.01


def test_a_grid_finds_what_no_tile_cuts(tokenizer, big_scenes):
    photos, texts, boxes = big_scenes
    slicing = method_of("grid:11x11").slicing
    found = slice_grounder(tokenizer, "grid:11x11").ground(photos, texts)
    inside = [
        bool((np.less_equal(tiles[:, :2], box[:2]) & np.greater_equal(tiles[:, 2:], box[2:])).all(axis=1).any())
        for box in boxes
        for tiles in [slicing.boxes((690, 650))]
    ]
    assert sum(inside) >= 2
    errors = errors_of(found, boxes)
    assert max(error for error, whole in zip(errors, inside, strict=True) if whole) < 1.6
    assert all(0 < error < 6 for error, whole in zip(errors, inside, strict=True) if not whole)


def photo_with_a_patch(x, y, size=(150, 150)):
    photo = np.full((*size, 3), 100, np.uint8)
    photo[y : y + 6, x : x + 6] = (250, 20, 20)
    return photo


def sure(ranking):
    """Boxes that scored well, those of patches."""
    return ranking.boxes[ranking.scores > 0.9].round(3).tolist()


def test_overlaps_show_a_patch_again_and_nms_or_merging_leaves_one_box(tokenizer):
    whole = [52, 20, 58, 26]  # windows of 64 lie at 0, 48 and 86, both of the first two see it whole
    photo = photo_with_a_patch(52, 20)
    ranked = {
        merging: slice_grounder(tokenizer, f"sliding:64:0.25:{merging}:min_score=0.9").rank(photo, "red patch here")[0]
        for merging in ("score", "nms", "nmm")
    }
    assert sure(ranked["score"]) == [whole, whole]
    assert sure(ranked["nms"]) == sure(ranked["nmm"]) == [whole]
    assert ranked["score"].slices[:2].tolist() == [[0, 0, 64, 64], [48, 0, 112, 64]]
    assert all(one.passes == 9 for one in ranked.values())


def test_merging_makes_a_cut_patch_whole(tokenizer):
    # The window at 0 ends at 64, in the middle of the patch, and comes first among equal scores.
    photo = photo_with_a_patch(61, 20)
    for merging, box in (("score", (61, 20, 64, 26)), ("nmm", (61, 20, 67, 26))):
        grounder = slice_grounder(tokenizer, f"sliding:64:0.25:{merging}:min_score=0.9")
        np.testing.assert_allclose(grounder.ground(photo, "red patch here").box, box, rtol=0, atol=0.01)


def test_a_photo_has_the_same_result_alone_and_in_a_batch(tokenizer, grounders, scenes):
    for word in WORDS[2:]:
        together = grounders[word].ground(*scenes[:2])
        for grounder in (slice_grounder(tokenizer, word, batch_size=1, chunk=5), grounders[word]):
            for place in (2, 3):
                alone, found = grounder.ground(scenes[0][place], scenes[1][place]), together[place]
                np.testing.assert_allclose(alone.box, found.box, rtol=0, atol=1e-3)
                assert alone.score == pytest.approx(found.score, abs=1e-6)
                assert (alone.passes, alone.steps[0].crop) == (found.passes, found.steps[0].crop)


def test_passes_are_counted_and_no_more_are_made(grounders, scenes):
    photos, texts, _ = scenes
    for word, grounder in grounders.items():
        grounder.ground(photos, texts)
        jax.effects_barrier()
        before = len(fake_detector.TEXT_CALLS)
        found, seen = count_detections(lambda grounder=grounder: grounder.ground(photos, texts))
        assert len(fake_detector.TEXT_CALLS) == before + 1
        passes = [len(method_of(word).slicing.boxes((photo.shape[1], photo.shape[0]))) for photo in photos]
        assert [one.passes for one in found] == passes
        assert seen == -(-sum(passes) // 8) * 8
    assert [one.passes for one in grounders["sliding:96:0.25"].ground(photos[3:4], texts[3:4])] == [1]


def test_nothing_is_compiled_again_for_other_photos_of_these_sizes(grounders, scenes):
    fresh = [draw_patches(70 + seed, width, height, 6)[0] for seed, (width, height) in enumerate(reversed(SIZES))]
    assert compilations.during(lambda: grounders["sliding:96:0.25"].ground(fresh, scenes[1])) == 0


def test_slices_are_evaluated_like_a_zoom(tmp_path, grounders, scenes):
    records = []
    for number, (photo, text, box) in enumerate(zip(*scenes, strict=True)):
        path = tmp_path / f"{number}.png"
        Image.fromarray(photo).save(path)
        fields = {"image": path.read_bytes(), "name": path.name, "id": number, "expression": text}
        records.append(fields | {"box_xyxy": np.array(box, np.float32)})
    grounder = grounders["grid:6x7"]
    found = list(evaluate.predictions(grounder, records))
    direct = grounder.ground(*scenes[:2])
    np.testing.assert_allclose([one.grounding.box for one in found], [one.box for one in direct], rtol=0, atol=1e-3)
    numbers = evaluate.measure(found)["all"].compute()
    assert float(numbers["mean_steps"]) == 42
    assert float(numbers["mean_iou"]) == pytest.approx(np.mean([one.iou for one in found]), abs=1e-6)
    assert found[0].to_dict()["passes"] == 42


def test_a_zoom_and_a_single_pass_count_their_steps(tokenizer, scenes):
    zoom = ZoomConfig(canvas_hw=CANVAS, min_crop_px=16.0)
    for single_pass in (False, True):
        grounder = Grounder(model_of(tokenizer), tokenizer, zoom, 8, single_pass=single_pass)
        found = grounder.ground(scenes[0][1], scenes[1][1])
        assert found.passes == len(found.steps)
        assert (found.passes == 1) == single_pass


def test_broken_models_and_senseless_options_are_refused(tokenizer, scenes):
    with pytest.raises(PizaError, match="not finite"):
        slice_grounder(tokenizer, "grid:2x2", BrokenDetector).ground(scenes[0][3], "red patch here")
    with pytest.raises(PizaError, match=r"chunk \(0\)"):
        slice_grounder(tokenizer, "grid:2x2", chunk=0)
    with pytest.raises(PizaError, match=r"num_ranked \(0\)"):
        slice_grounder(tokenizer, "grid:2x2", num_ranked=0)
    with pytest.raises(PizaError, match="2 images and 3 expressions"):
        slice_grounder(tokenizer, "grid:2x2").ground(scenes[0][:2], ["red"] * 3)
