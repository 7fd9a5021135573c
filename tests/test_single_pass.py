"""The single pass: one look at the whole photo, the same alone and in a batch, each size compiled once."""

import warnings

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from piza_jax import Grounder, PizaError
from piza_jax.data.preprocess import Preprocessing
from piza_jax.piza import single_pass
from piza_jax.piza.zoom import ZoomConfig
from tests import compilations
from tests.fake_detector import COLOURS, Found, PatchDetector, draw_patches, make_tokenizer

SIZES = [(600, 400), (500, 500), (300, 200), (320, 480), (400, 400), (256, 512), (60, 40), (512, 256)]


@pytest.fixture(scope="module")
def tokenizer():
    return make_tokenizer()


@pytest.fixture(scope="module")
def scenes():
    drawn = [draw_patches(seed, width, height) for seed, (width, height) in enumerate(SIZES)]
    texts = [f"{COLOURS[seed % 3]} patch here" for seed in range(len(SIZES))]
    return [photo for photo, _ in drawn], texts, [boxes[COLOURS[seed % 3]] for seed, (_, boxes) in enumerate(drawn)]


def patch_grounder(tokenizer, **options) -> Grounder:
    ids = tuple(int(tokenizer.encode(colour, 8)[0][1]) for colour in COLOURS)
    view = Preprocessing(shortest_edge=128, longest_edge=224)
    options = {"preprocessing": view, "single_pass": True} | options
    return Grounder(PatchDetector(ids, margin=0.0), tokenizer, max_tokens=8, **options)


@pytest.fixture(scope="module")
def batched(tokenizer, scenes):
    grounder = patch_grounder(tokenizer)
    return grounder, grounder.ground(scenes[0], scenes[1])


def test_the_box_is_found_in_photo_pixels_in_one_step(batched, scenes):
    for found, photo, text, expected in zip(batched[1], *scenes, strict=True):
        height, width = photo.shape[:2]
        np.testing.assert_allclose(found.box, expected, atol=max(height, width) / 128 + 0.5)
        (step,) = found.steps
        assert step.crop == (0, 0, width, height)
        assert (step.box, step.score, step.stop_probability) == (found.box, found.score, 1.0)
        assert found.expression == text


def test_mixed_sizes_in_a_batch_give_the_boxes_of_single_runs(tokenizer, batched, scenes):
    single = patch_grounder(tokenizer, batch_size=1)
    for found, photo, text in zip(batched[1], scenes[0], scenes[1], strict=True):
        alone = single.ground(photo, text)
        np.testing.assert_allclose(alone.box, found.box, rtol=0, atol=1e-3)
        assert alone.score == pytest.approx(found.score, abs=1e-6)


def test_each_size_is_compiled_once(tokenizer, batched, scenes):
    grounder, _ = batched
    fresh = [draw_patches(40 + seed, width, height)[0] for seed, (width, height) in enumerate(reversed(SIZES))]
    assert compilations.during(lambda: grounder.ground(fresh, scenes[1])) == 0
    assert compilations.during(lambda: grounder.ground(draw_patches(0, 610, 200)[0], "red patch")) == 1


def test_rounded_canvases_are_fewer_and_still_the_same_alone(tokenizer, batched, scenes):
    grounder = patch_grounder(tokenizer, canvas_multiple=256)
    assert compilations.during(lambda: grounder.ground(scenes[0], scenes[1])) == 1
    for found, exact in zip(grounder.ground(scenes[0], scenes[1]), batched[1], strict=True):
        np.testing.assert_allclose(found.box, exact.box, rtol=0, atol=1e-3)
    alone = grounder.ground(scenes[0][1], scenes[1][1])
    np.testing.assert_allclose(alone.box, batched[1][1].box, rtol=0, atol=1e-3)


def test_many_sizes_are_warned_of_once(tokenizer, monkeypatch):
    monkeypatch.setattr(single_pass, "MANY_SIZES", 1)
    grounder = patch_grounder(tokenizer)
    photos = [np.zeros((40, width, 3), np.uint8) for width in (40, 41, 42)]
    with pytest.warns(UserWarning, match="canvas_multiple=32") as caught:
        [grounder.ground(photo, "red patch") for photo in photos]
    assert len(caught) == 1
    assert caught[0].filename == __file__
    grounder = patch_grounder(tokenizer, canvas_multiple=256)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        grounder.ground(photos, "red patch")


class Brightness(nnx.Module):
    """Two tokens and two boxes; what they score is the mean of the first pixel."""

    def __init__(self, scale: float = 1.0):
        self.scale = nnx.Param(jnp.float32(scale))

    def encode_text(self, input_ids, token_mask):
        return token_mask

    def detect(self, images, valid_hw, text, progress=None):
        value = self.scale[...] * jnp.mean(images[:, 0, 0], axis=-1)[:, None, None]
        logits = jnp.where(text[:, None], value + jnp.array([0.0, -9.0])[:, None], -jnp.inf)
        boxes = jnp.array([[0.25, 0.5, 0.5, 1.0], [0.5, 0.5, 0.2, 0.2]])
        return Found(logits[None], jnp.broadcast_to(boxes, (len(images), 2, 4))[None])


@pytest.mark.parametrize("way", ["single pass", "zoom"])
def test_the_files_statistics_normalise_the_input(tokenizer, way):
    view = Preprocessing(32, 64, mean=(0.2, 0.3, 0.4), std=(0.5, 0.25, 0.125))
    zoom = ZoomConfig(mode="training_free", canvas_hw=(32, 32), max_steps=1)
    single = way == "single pass"
    grounder = Grounder(Brightness(), tokenizer, zoom, 8, preprocessing=view, single_pass=single)
    found = grounder.ground(np.full((40, 40, 3), 102, np.uint8), "red patch")
    value = np.mean([(0.4 - 0.2) / 0.5, (0.4 - 0.3) / 0.25, (0.4 - 0.4) / 0.125])
    assert found.score == pytest.approx(1 / (1 + np.exp(-value)), abs=1e-6)


def test_one_photo_with_many_texts_is_read_and_resized_once(batched, scenes, monkeypatch):
    grounder, found = batched
    sizes, view = [], Preprocessing.view
    monkeypatch.setattr(Preprocessing, "view", lambda self, photo: (sizes.append(photo.shape), view(self, photo))[1])
    results = grounder.ground(scenes[0][0], [scenes[1][0]] * 4)
    assert sizes == [scenes[0][0].shape]
    assert len(results) == 4
    np.testing.assert_allclose([one.box for one in results], [found[0].box] * 4, rtol=0, atol=1e-3)


def test_the_default_view_fits_the_zooms_canvas(tokenizer):
    grounder = Grounder(Brightness(), tokenizer, ZoomConfig(canvas_hw=(48, 64)), 8)
    assert grounder.preprocessing == Preprocessing(48, 64)


def test_photos_and_phrases_in_every_form(tokenizer, tmp_path):
    grounder = Grounder(Brightness(), tokenizer, max_tokens=8, preprocessing=Preprocessing(32, 64))
    bright, dark = np.full((40, 80, 3), 250, np.uint8), np.zeros((50, 50, 3), np.uint8)
    one = grounder.detect(bright, "red patch")
    assert one.text == "red patch."
    np.testing.assert_allclose(one.boxes, [[0, 0, 40, 40]])
    assert one.labels == ("red patch. [SEP]",)
    assert len(grounder.detect(bright, "red patch", box_threshold=0.0)) == 2
    assert len(grounder.detect(bright, "red patch", box_threshold=0.0, max_detections=1)) == 1
    assert grounder.detect(bright, ["Red", "green"]).text == "red. green."
    two = grounder.detect([bright, dark], "red patch")
    assert [len(found) for found in two] == [1, 0]
    assert [found.text for found in grounder.detect([bright, dark], ["red.", "green."])] == ["red.", "green."]
    assert [found.text for found in grounder.detect(bright, [["red"], ["green"]])] == ["red.", "green."]
    assert [found.text for found in grounder.detect([bright], "red")] == ["red."]
    with pytest.raises(PizaError, match="2 images and 3 expressions"):
        grounder.detect([bright, dark], ["red.", "green.", "blue."])
    with pytest.raises(PizaError, match="empty"):
        grounder.detect(bright, " . ")
    with pytest.raises(PizaError, match="box_threshold is 2"):
        grounder.detect(bright, "red", box_threshold=2)
    with pytest.raises(PizaError, match="limit is 8"):
        grounder.detect(bright, "red. green. blue. red. green.")
    with pytest.raises(PizaError, match="too thin"):
        grounder.detect(np.zeros((1, 500, 3), np.uint8), "red")
    with pytest.raises(PizaError, match="canvas_multiple is 0"):
        Grounder(Brightness(), tokenizer, canvas_multiple=0)


def test_new_weights_are_taken_and_broken_ones_refused(tokenizer):
    grounder = Grounder(Brightness(), tokenizer, max_tokens=8, single_pass=True, preprocessing=Preprocessing(32, 64))
    photo = np.full((40, 40, 3), 250, np.uint8)
    before = grounder.ground(photo, "red patch").score
    grounder.update(Brightness(2.0))
    assert grounder.ground(photo, "red patch").score > before + 0.01
    grounder.update(Brightness(float("nan")))
    for run in (grounder.ground, grounder.detect):
        with pytest.raises(PizaError, match="not finite"):
            run(photo, "red patch")


def test_a_detector_not_trained_for_sentences_warns_once(tokenizer):
    options = {"max_tokens": 8, "single_pass": True, "preprocessing": Preprocessing(32, 64)}
    photo = np.full((40, 40, 3), 250, np.uint8)
    grounder = Grounder(Brightness(), tokenizer, zero_shot=True, **options)
    with pytest.warns(UserWarning, match="not trained to ground sentences") as caught:
        [grounder.ground(photo, "red patch") for _ in range(2)]
    assert len(caught) == 1
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Grounder(Brightness(), tokenizer, **options).ground(photo, "red patch")
        Grounder(Brightness(), tokenizer, zero_shot=True, **options).detect(photo, "red patch")
