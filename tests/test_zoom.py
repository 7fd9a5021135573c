"""The zoom loop, with a detector that finds a coloured patch by its pixels."""

import jax
import numpy as np
import pytest
from flax import nnx

from piza_jax.errors import PizaError
from piza_jax.grounder import Grounder, load
from piza_jax.models.config import DetectorConfig
from piza_jax.piza.detector import PizaConfig, PizaDetector
from piza_jax.piza.zoom import ZoomConfig
from tests import compilations, fake_detector, figures
from tests.fake_detector import COLOURS, PatchDetector, draw_patches, make_tokenizer

SIZES = [(600, 400), (500, 500), (320, 480), (640, 360), (400, 300), (512, 256), (256, 512), (700, 500)]


@pytest.fixture(scope="module")
def tokenizer():
    return make_tokenizer()


def patch_grounder(tokenizer, batch_size=8, **zoom) -> Grounder:
    ids = tuple(int(tokenizer.encode(colour, 8)[0][1]) for colour in COLOURS)
    config = ZoomConfig(**{"canvas_hw": (96, 96), "min_crop_px": 16.0} | zoom)
    return Grounder(PatchDetector(ids), tokenizer, config, 8, batch_size=batch_size, photo_hw=(700, 700))


@pytest.fixture(scope="module")
def scenes():
    photos, texts, boxes = [], [], []
    for seed, (width, height) in enumerate(SIZES):
        photo, found = draw_patches(seed, width, height)
        colour = COLOURS[seed % 3]
        photos.append(photo)
        texts.append(f"{colour} patch here")
        boxes.append(found[colour])
    return photos, texts, boxes


@pytest.fixture(scope="module")
def batched(tokenizer, scenes):
    grounder = patch_grounder(tokenizer)
    return grounder, grounder.ground(scenes[0], scenes[1])


def test_the_zoom_ends_on_the_patch_and_gets_tighter(batched, scenes):
    _, results = batched
    for result, photo, expected in zip(results, scenes[0], scenes[2], strict=True):
        assert 2 <= len(result.steps) <= 5
        np.testing.assert_allclose(result.steps[0].crop, (0, 0, photo.shape[1], photo.shape[0]))
        np.testing.assert_allclose(result.box, expected, atol=4)
        first = abs(np.subtract(result.steps[0].box, expected)).max()
        assert abs(np.subtract(result.box, expected)).max() < first


def test_a_batch_of_eight_sizes_equals_eight_single_runs(tokenizer, batched, scenes):
    single = patch_grounder(tokenizer, batch_size=1)
    for result, photo, text in zip(batched[1], scenes[0], scenes[1], strict=True):
        alone = single.ground(photo, text)
        figures.note("zoom: batch of 8 against single runs, pixels", np.abs(np.subtract(alone.box, result.box)).max())
        np.testing.assert_allclose(alone.box, result.box, atol=0.01)
        assert len(alone.steps) == len(result.steps)


def test_nothing_is_compiled_again_for_other_photos(batched, scenes):
    grounder, _ = batched
    fresh = [draw_patches(50 + seed, width, height)[0] for seed, (width, height) in enumerate(reversed(SIZES))]
    assert compilations.during(lambda: grounder.ground(fresh, scenes[1])) == 0


def test_text_is_encoded_once_for_all_steps(batched, scenes):
    grounder, _ = batched
    jax.effects_barrier()
    before = len(fake_detector.TEXT_CALLS)
    results = grounder.ground(scenes[0], scenes[1])
    jax.effects_barrier()
    assert max(len(result.steps) for result in results) > 1
    assert len(fake_detector.TEXT_CALLS) == before + 1


def test_a_search_never_stops_before_it_has_a_box(tokenizer, scenes):
    grounder = patch_grounder(tokenizer, batch_size=1, stop_threshold=1e-9)
    result = grounder.ground(scenes[0][0], scenes[1][0])
    assert len(result.steps) == 1
    assert result.box == result.steps[0].box


def test_training_free_zoom_needs_no_history(tokenizer, scenes):
    grounder = patch_grounder(tokenizer, batch_size=1, mode="training_free")
    result = grounder.ground(scenes[0][0], scenes[1][0])
    assert len(result.steps) > 1
    np.testing.assert_allclose(result.box, scenes[2][0], atol=6)


@pytest.mark.slow
def test_the_real_detector_zooms_a_batch_like_single_runs(tokenizer, scenes):
    ids = tokenizer.delimiter_ids
    config = PizaConfig(detector=DetectorConfig.preset("tiny", delimiter_ids=ids), adapter_dim=8)
    model = PizaDetector(config, rngs=nnx.Rngs(3))
    zoom = ZoomConfig(canvas_hw=(64, 64), max_steps=3, stop_threshold=1.0)
    together = Grounder(model, tokenizer, zoom, 16, photo_hw=(700, 700)).ground(scenes[0], scenes[1])
    single = Grounder(model, tokenizer, zoom, 16, batch_size=1, photo_hw=(700, 700))
    for result, photo, text in zip(together, scenes[0], scenes[1], strict=True):
        alone = single.ground(photo, text)
        figures.note("zoom: batch of 8 against single runs, pixels", np.abs(np.subtract(alone.box, result.box)).max())
        np.testing.assert_allclose(alone.box, result.box, atol=0.01)


def test_loading_a_folder_without_a_run_says_so(tmp_path):
    with pytest.raises(PizaError, match="nowhere"):
        load(tmp_path / "nowhere")
