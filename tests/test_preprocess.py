"""Preprocessing: sizes, pixels and normalised batches of transformers' image processor, and its file both ways."""

import json

import numpy as np
import pytest
from PIL import Image

from piza_jax import PizaError
from piza_jax.data.preprocess import FILE, Preprocessing
from piza_jax.ops.images import normalise, valid_pixels
from tests import figures

# Heights and widths: landscape, portrait, square, already small, extreme, and one that stays as it is.
PHOTOS = [(97, 143), (260, 61), (120, 120), (40, 30), (50, 300), (300, 51), (64, 96)]
SMALL = Preprocessing(shortest_edge=64, longest_edge=106)


def noise(seed: int, height: int, width: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def theirs(**values):
    module = pytest.importorskip("transformers.models.grounding_dino.image_processing_pil_grounding_dino")
    return module.GroundingDinoImageProcessorPil(**values)


@pytest.mark.parametrize(("shortest", "longest"), [(800, 1333), (64, 106), (480, 480), (37, 1000), (2, 3)])
def test_sizes_are_those_of_transformers(shortest, longest):
    transforms = pytest.importorskip("transformers.image_transforms")
    rng = np.random.default_rng(shortest)
    ours = Preprocessing(shortest, longest)
    sides = np.exp(rng.uniform(np.log(shortest / 8 + 1), np.log(9000), (4000, 2))).astype(int)
    near = rng.integers(max(shortest - 3, 1), longest + 3, (2000, 2))  # where sides are kept or cut by one pixel
    compared = 0
    for height, width in np.concatenate([sides, near]).tolist():
        expected = transforms.get_size_with_aspect_ratio((height, width), shortest, longest)
        if min(expected) < 1:
            with pytest.raises(PizaError, match="too thin"):
                ours.size_of(height, width)
            continue
        assert ours.size_of(height, width) == expected, (height, width)
        compared += 1
    assert compared > 3000


def test_views_are_the_processors_pixels():
    processor = theirs(size={"shortest_edge": 64, "longest_edge": 106}, do_rescale=False, do_normalize=False)
    for seed, size in enumerate(PHOTOS):
        photo = noise(seed, *size)
        pixels, hw = SMALL.view(photo)
        expected = processor(photo, input_data_format="channels_last")["pixel_values"][0]
        assert pixels.dtype == np.uint8
        assert pixels.shape == (*hw, 3)
        np.testing.assert_array_equal(pixels, np.moveaxis(expected, 0, -1))
        np.testing.assert_array_equal(SMALL.view(Image.fromarray(photo))[0], pixels)


@pytest.mark.parametrize("other", [False, True], ids=["ImageNet", "other statistics"])
def test_batches_are_the_processors_values_and_masks(other):
    statistics = {"mean": (0.5, 0.4, 0.3), "std": (0.5, 0.25, 0.2)} if other else {}
    ours = Preprocessing(64, 106, **statistics)
    processor = theirs(**ours.to_dict())
    photos = [noise(seed, *size) for seed, size in enumerate(PHOTOS)]
    canvas, valid_hw = ours.batch(photos)
    expected = processor(photos, input_data_format="channels_last", return_tensors="np")
    mean, std = (255 * np.array(values) for values in (ours.mean, ours.std))
    values = np.moveaxis(normalise(canvas, valid_hw, mean, std), -1, 1)
    figures.note("normalised pixels against transformers", np.abs(values - expected["pixel_values"]).max())
    np.testing.assert_allclose(values, expected["pixel_values"], rtol=0, atol=1e-6)
    np.testing.assert_array_equal(valid_pixels(valid_hw, canvas.shape[1:3]), expected["pixel_mask"] == 1)
    if not other:
        np.testing.assert_array_equal(normalise(canvas, valid_hw), np.moveaxis(values, 1, -1))


def test_the_file_is_read_back_by_both(tmp_path):
    module = pytest.importorskip("transformers.models.grounding_dino.image_processing_pil_grounding_dino")
    written = Preprocessing(160, 266, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    written.save(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [FILE]
    assert Preprocessing.from_file(tmp_path / FILE) == written
    processor = module.GroundingDinoImageProcessorPil.from_pretrained(tmp_path)
    assert json.loads(processor.to_json_string()) == written.to_dict()
    module.GroundingDinoImageProcessorPil().save_pretrained(tmp_path)
    assert Preprocessing.from_file(tmp_path / FILE) == Preprocessing()


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({}, Preprocessing()),
        ({"size": 600, "max_size": 1000}, Preprocessing(600, 1000)),
        ({"size": 600, "image_processor_type": "GroundingDinoImageProcessorFast"}, Preprocessing(600, 1333)),
        ({"image_processor": {"size": {"shortest_edge": 5, "longest_edge": 9}}, "x": 1}, Preprocessing(5, 9)),
        ({"image_mean": 0.5, "image_std": [0.5, 0.5, 0.5]}, Preprocessing(800, 1333, (0.5,) * 3, (0.5,) * 3)),
        ({"pad_size": None, "resample": None, "do_convert_rgb": True, "format": "coco_panoptic"}, Preprocessing()),
    ],
)
def test_forms_of_the_file(tmp_path, content, expected):
    (tmp_path / "c.json").write_text(json.dumps(content))
    assert Preprocessing.from_file(tmp_path / "c.json") == expected


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"do_resize": False}, "do_resize is False"),
        ({"do_rescale": False}, "do_rescale is False"),
        ({"do_normalize": None}, "do_normalize is None"),
        ({"do_pad": False}, "do_pad is False"),
        ({"pad_and_return_pixel_mask": False}, "pad_and_return_pixel_mask is False"),
        ({"pad_size": {"height": 9, "width": 9}}, "pad_size is {'height'"),
        ({"resample": 3}, "resample is 3; only 2"),
        ({"rescale_factor": 1.0}, "rescale_factor is 1.0"),
        ({"size": {"height": 800, "width": 800}}, "size is {'height'"),
        ({"size": {"shortest_edge": 800}}, "size is {'shortest_edge': 800}"),
        ({"size": {"max_height": 800, "max_width": 800}}, "size is {'max_height'"),
        ({"size": {"shortest_edge": 900, "longest_edge": 800}}, "shortest_edge is 900"),
        ({"image_mean": [0.5, 0.5]}, r"image_mean is \[0.5, 0.5\]"),
        ({"image_std": [0.5, 0.5, 0.0]}, "std above 0"),
        ({"image_processor_type": "CLIPImageProcessor"}, "CLIPImageProcessor"),
        ({"image_processor": {"do_resize": False}}, "do_resize is False"),
        ([1], "does not describe an image processor"),
    ],
)
def test_unsupported_settings_are_named_with_their_file(tmp_path, content, message):
    (tmp_path / "c.json").write_text(json.dumps(content))
    with pytest.raises(PizaError, match=rf"c\.json.*{message}"):
        Preprocessing.from_file(tmp_path / "c.json")


def test_absent_or_broken_files_are_errors(tmp_path):
    with pytest.raises(PizaError, match="cannot read"):
        Preprocessing.from_file(tmp_path / FILE)
    (tmp_path / FILE).write_text("{")
    with pytest.raises(PizaError, match="not JSON"):
        Preprocessing.from_file(tmp_path / FILE)
    with pytest.raises(PizaError, match="cannot write"):
        Preprocessing().save(tmp_path / "absent")


@pytest.mark.parametrize(("height", "width"), [(3000, 4000), (4000, 3000), (1, 3), (700, 700), (50, 4000)])
def test_the_default_for_a_canvas_fits_it(height, width):
    for canvas in ((64, 96), (96, 64), (80, 80)):
        assert max(Preprocessing.for_canvas(canvas).size_of(height * 100, width * 100)) <= max(canvas)
        assert min(Preprocessing.for_canvas(canvas).size_of(height * 100, width * 100)) <= min(canvas)
