"""Samples: what one record gives for each step of its search."""

import numpy as np
import pytest

from piza_jax import PizaError
from piza_jax.data.samples import SampleConfig, all_samples, random_sample
from piza_jax.data.search import SearchConfig, ideal_boxes
from piza_jax.data.tokenize import Tokenizer
from piza_jax.data.views import view_to_photo
from tests.small_source import TEXTS, record

CONFIG = SampleConfig(canvas_hw=(64, 64), max_tokens=16)
STEADY = SampleConfig(canvas_hw=(64, 64), max_tokens=16, search=SearchConfig(jitter_place=0.0, jitter_scale=0.0))


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.train(TEXTS, 120)


def test_samples_of_a_record_walk_its_search_to_the_stop(tokenizer):
    row = record(3)
    samples = all_samples(row, tokenizer, STEADY, np.random.default_rng(0))
    boxes = ideal_boxes((400, 300), row["box_xyxy"], STEADY.search)
    assert len(samples) == len(boxes) == 3
    for t, sample in enumerate(samples):
        np.testing.assert_array_equal(sample["history"][: t + 1], boxes[: t + 1])
        assert not sample["history"][t + 1 :].any()
        np.testing.assert_array_equal(sample["history_mask"], np.arange(6) <= t)
        assert sample["has_target"] == (t < 2)
        assert sample["stop"] == float(t == 2)
        assert sample["id"] == 103
        if t < 2:
            np.testing.assert_allclose(view_to_photo(sample["target_box"], boxes[t]), boxes[t + 1], atol=1e-2)
    assert [float(sample["progress"]) for sample in samples] == pytest.approx([0, 0.4, 1], abs=1e-5)
    assert not samples[2]["target_box"].any()
    for sample, box in zip(samples, boxes, strict=True):  # whatever comes next, the end of the search stays in place
        np.testing.assert_allclose(view_to_photo(sample["final_box"], box), boxes[-1], atol=1e-2)
    np.testing.assert_array_equal(samples[1]["final_box"], samples[1]["target_box"])


@pytest.mark.parametrize("seed", range(5))
def test_label_marks_the_targets_pixels_in_a_jittered_crop(tokenizer, seed):
    row = record(0)  # a red square
    sample = all_samples(row, tokenizer, CONFIG, np.random.default_rng(seed))[1]
    height, width = sample["valid_hw"]
    rows, columns = np.nonzero(sample["image"][:height, :width, 0] > 150)
    cx, cy, w, h = sample["target_box"] * [width, height, width, height]
    found = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    np.testing.assert_allclose([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2], found, atol=1.01)


def test_stop_samples_show_the_target_itself(tokenizer):
    sample = all_samples(record(0), tokenizer, CONFIG, np.random.default_rng(0))[-1]
    np.testing.assert_array_equal(sample["valid_hw"], [64, 64])
    rim = 4  # the enlarging filter reaches into the pixels around the target
    assert (sample["image"][rim:-rim, rim:-rim] == [255, 0, 0]).all()


def test_content_outside_the_valid_part_is_zero(tokenizer):
    sample = all_samples(record(0), tokenizer, CONFIG, np.random.default_rng(0))[0]
    np.testing.assert_array_equal(sample["valid_hw"], [48, 64])
    assert not sample["image"][48:].any()
    assert sample["image"][:48].any(axis=-1).all()


@pytest.mark.parametrize(("stop_fraction", "expected"), [(None, 1 / 3), (0.0, 0.0), (0.1, 0.1), (1.0, 1.0)])
def test_stop_fraction_sets_the_part_of_stop_samples(tokenizer, stop_fraction, expected):
    config = SampleConfig(canvas_hw=(8, 8), max_tokens=16, stop_fraction=stop_fraction)
    samples = [random_sample(record(0), tokenizer, config, np.random.default_rng(seed)) for seed in range(600)]
    steps = np.array([sample["history_mask"].sum() - 1 for sample in samples])
    assert np.mean(steps == 2) == pytest.approx(expected, abs=0.06)
    assert np.mean(steps == 0) == pytest.approx((1 - expected) / 2, abs=0.06)
    np.testing.assert_array_equal(steps == 2, [sample["stop"] == 1 for sample in samples])


def test_scale_range_renders_smaller_contents(tokenizer):
    config = SampleConfig(canvas_hw=(100, 100), max_tokens=16, stop_fraction=0.0, scale_range=(0.6, 1.0))
    widths = [random_sample(record(0), tokenizer, config, np.random.default_rng(s))["valid_hw"][1] for s in range(200)]
    assert 60 <= min(widths) < 65
    assert 95 < max(widths) <= 100


@pytest.mark.parametrize(
    "setting",
    [{"canvas_hw": (0, 64)}, {"stop_fraction": 1.5}, {"scale_range": (0.5, 1.1)}, {"scale_range": (0.9, 0.5)}],
)
def test_impossible_sample_setting_is_an_error_that_names_it(setting):
    with pytest.raises(PizaError, match=next(iter(setting))):
        SampleConfig(**setting)
