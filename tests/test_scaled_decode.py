"""Decoding no more of a JPEG than a view needs: the same rows, nearly the same view, and nothing moves."""

import contextlib
import io
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageFilter

from piza_jax import PizaError
from piza_jax.data.captions import CaptionConfig, Phrase, random_caption
from piza_jax.data.decode import FACTORS, decode_rgb, open_part, open_rgb, photo_size
from piza_jax.data.jpeg_rows import claim_rows
from piza_jax.data.mini_source import MiniSource
from piza_jax.data.photo_cache import PHOTOS
from piza_jax.data.samples import SampleConfig, random_sample
from piza_jax.data.search import SearchConfig, search_boxes
from piza_jax.data.tokenize import Tokenizer
from piza_jax.data.views import DECODE_MARGIN, content_hw, make_view, view_needs
from tests.small_source import TEXTS, encoded, record

MEAN_ERROR = {"real": 0.7, "drawn": 1.2}  # of 255, over a view of a whole photo; see docs/input_pipeline.md


def picture(size=(640, 480), seed=0):
    """Smooth, with sharp edges too."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (12, 16, 3), np.uint8))
    image = small.resize(size, Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(image)
    for _ in range(40):
        x, y, w, h = (int(value) for value in rng.integers([0, 0, 4, 4], [*size, 60, 60]))
        draw.rectangle((x, y, x + w, y + h), fill=tuple(int(value) for value in rng.integers(0, 256, 3)))
    return image


JPEGS = {
    "stored": lambda: encoded(picture(), "JPEG", quality=90),
    "grey": lambda: encoded(picture().convert("L"), "JPEG", quality=90),
    "cmyk": lambda: encoded(picture().convert("CMYK"), "JPEG", quality=90),
    "444": lambda: encoded(picture(), "JPEG", quality=90, subsampling=0),
    "422": lambda: encoded(picture(), "JPEG", quality=90, subsampling=1),
    "odd": lambda: encoded(picture((637, 475)), "JPEG", quality=90),
    "mpo": lambda: encoded(picture(), "MPO", quality=90, save_all=True, append_images=[picture(seed=1)]),
    "padded": lambda: encoded(picture(), "JPEG", quality=90).replace(b"\xff\xc0", b"\xff\xff\xff\xc0", 1),
}
WHOLE = {
    "progressive": lambda: encoded(picture(), "JPEG", quality=90, progressive=True),
    "restarts": lambda: encoded(picture(), "JPEG", quality=90, restart_marker_rows=2),
    "png": lambda: encoded(picture()),
    "webp": lambda: encoded(picture(), "WEBP"),
}


# Rows


@pytest.mark.parametrize("kind", JPEGS)
@pytest.mark.parametrize("factor", FACTORS)
def test_upper_rows_are_those_of_the_whole_photo(kind, factor):
    data = JPEGS[kind]()
    whole = open_part(data, "a.jpg", factor)
    assert whole.size == photo_size(data, "a.jpg")
    assert whole.rows == whole.size[1]
    for rows in (1, 17, 160, 203):
        part = open_part(data, "a.jpg", factor, rows)
        assert part.factor == whole.factor
        assert rows <= part.rows < rows + factor
        assert part.image.height < whole.image.height
        assert part.image.width == whole.image.width
        shown = -(-part.rows // part.factor)
        np.testing.assert_array_equal(np.asarray(part.image)[:shown], np.asarray(whole.image)[:shown])


@pytest.mark.parametrize("kind", WHOLE)
def test_what_has_no_rows_of_its_own_is_decoded_whole(kind):
    data = WHOLE[kind]()
    assert claim_rows(data, 100) == (data, False)
    part = open_part(data, "a", 1, 100)
    assert part.rows == part.image.height == 480
    np.testing.assert_array_equal(np.asarray(part.image), decode_rgb(data, "a"))


@pytest.mark.parametrize("rows", [480, 500, 10_000])
def test_as_many_rows_as_there_are_is_the_whole_photo(rows):
    data = JPEGS["stored"]()
    part = open_part(data, "a.jpg", 1, rows)
    assert part.image.height == part.rows == 480


def test_a_thumbnail_in_the_file_is_not_taken_for_the_photo():
    exif = Image.Exif()
    thumbnail = encoded(picture((64, 48)), "JPEG")
    exif.get_ifd(0x8769)[0x927C] = thumbnail  # a maker's note that looks like a JPEG
    data = encoded(picture(), "JPEG", quality=90, exif=exif)
    assert thumbnail in data
    part = open_part(data, "a.jpg", 1, 100)
    assert part.rows == 100
    np.testing.assert_array_equal(np.asarray(part.image)[:100], decode_rgb(data, "a.jpg")[:100])


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=8), st.sampled_from(FACTORS))
def test_damage_is_never_another_exception(damage, factor):
    data = bytearray(encoded(Image.new("RGB", (64, 96), "red"), "JPEG"))
    for place, value in damage:
        data[int(place * (len(data) - 1))] = value
    with contextlib.suppress(PizaError):
        part = open_part(bytes(data), "photo_7", factor, 20)
        assert part.image.mode == "RGB"
        assert part.factor in FACTORS


@pytest.mark.parametrize("factor", FACTORS)
def test_a_colour_without_samples_is_damage(factor):
    data = bytearray(encoded(Image.new("RGB", (64, 96), "red"), "JPEG"))
    frame = data.index(b"\xff\xc0")  # marker, length, bits, height, width, 3 colours: number, samples, table
    data[frame + 11] = 0
    with pytest.raises(PizaError, match="photo_7"):
        open_part(bytes(data), "photo_7", factor, 20)


# Scales


@pytest.mark.parametrize("kind", [*JPEGS, "progressive", "restarts"])
@pytest.mark.parametrize("factor", [2, 4, 8])
def test_a_jpeg_is_decoded_at_the_factor(kind, factor):
    data = (JPEGS | WHOLE)[kind]()
    part = open_part(data, "a.jpg", factor)
    # Where colours have half the columns but all the rows, libjpeg scales them with the rest and their detail is lost.
    assert part.factor == (factor // 2 if kind == "422" else factor)
    assert part.image.size == tuple(-(-side // part.factor) for side in part.size)
    reduced = np.asarray(open_rgb(data, "a.jpg").reduce(part.factor)).astype(int)
    assert np.abs(np.asarray(part.image).astype(int) - reduced).mean() < 3


@pytest.mark.parametrize("kind", ["png", "webp"])
def test_another_format_is_decoded_whole(kind):
    part = open_part(WHOLE[kind](), "a", 8)
    assert (part.factor, part.image.size, part.size) == (1, (640, 480), (640, 480))


@pytest.mark.parametrize("size", [(1, 1), (3, 2), (7, 300), (9, 8)])
def test_a_photo_smaller_than_a_block_has_a_scale_too(size):
    part = open_part(encoded(Image.new("RGB", size, "red"), "JPEG"), "a.jpg", 8)
    assert part.image.size == tuple(-(-side // part.factor) for side in size)


@pytest.mark.parametrize("part", [0.03, 0.3, 0.9])
@pytest.mark.parametrize("factor", FACTORS)
def test_a_jpeg_cut_short_is_an_error_that_names_it(part, factor):
    data = JPEGS["stored"]()
    with pytest.raises(PizaError, match="photo_7"):
        open_part(data[: int(len(data) * part)], "photo_7", factor)


def test_no_other_factor_is_taken():
    with pytest.raises(ValueError, match="factor 3"):
        open_part(JPEGS["stored"](), "a.jpg", 3)


# Views


@settings(max_examples=300, deadline=None)
@given(
    st.integers(8, 6000),
    st.integers(8, 6000),
    st.tuples(*[st.floats(0, 1)] * 4),
    st.integers(8, 1400),
    st.integers(8, 1400),
    st.floats(0.3, 1),
)
def test_the_resize_only_ever_shrinks_a_scaled_photo(width, height, corners, rows, columns, scale):
    x0, x1, y0, y1 = (*np.sort(corners[:2]) * width, *np.sort(corners[2:]) * height)
    box = np.array([x0, y0, max(x1, x0 + 1), max(y1, y0 + 1)], np.float32)
    factor, needed = view_needs(box, (rows, columns), scale, (width, height))
    content = content_hw(box, (rows, columns), scale)
    sides = (box[3] - box[1]) / content[0], (box[2] - box[0]) / content[1]
    assert factor == 1 or min(sides) >= DECODE_MARGIN * factor
    assert factor == 8 or min(sides) < DECODE_MARGIN * 2 * factor
    assert min(box[3], height) <= needed <= height


@pytest.mark.parametrize("kind", ["stored", "odd", "444", "restarts", "mpo"])
def test_zoomed_views_are_exact(kind):
    data = (JPEGS | WHOLE)[kind]()
    exact, rng = open_rgb(data, "a.jpg"), np.random.default_rng(0)
    for _ in range(20):
        low, side = rng.uniform(0, 300, 2), rng.uniform(8, 170, 2)
        box = np.array([*low, *(low + side)], np.float32)
        factor, rows = view_needs(box, (128, 128), 1.0, exact.size)
        assert factor == 1
        part = open_part(data, "a.jpg", factor, rows)
        np.testing.assert_array_equal(make_view(part, box, (128, 128))[0], make_view(exact, box, (128, 128))[0])


def centres(view, number, size, photo_wh):
    """Intensity-weighted centre [N, 2] of each bright spot in a view of the whole photo, in view pixels."""
    height, width = view.shape[:2]
    found = []
    for x, y in number:
        u, v = (x + 0.5) * width / photo_wh[0], (y + 0.5) * height / photo_wh[1]
        reach = size * width / photo_wh[0] + 4
        x0, y0 = max(int(u - reach), 0), max(int(v - reach), 0)
        weights = view[y0 : int(v + reach) + 1, x0 : int(u + reach) + 1].astype(float) - 40
        weights = np.where(weights > 8, weights, 0)
        rows, columns = np.mgrid[: weights.shape[0], : weights.shape[1]]
        found.append([(weights * axis).sum() / weights.sum() + low for axis, low in ((columns, x0), (rows, y0))])
    return np.array(found)


@pytest.mark.parametrize("channel", [0, 2], ids=["red", "blue"])
@pytest.mark.parametrize("photo_wh", [(1600, 1200), (1597, 1203), (1609, 1193)])
@pytest.mark.parametrize("canvas", [400, 250, 120])
def test_nothing_moves(photo_wh, canvas, channel):
    image, rng = Image.new("RGB", photo_wh, (40, 40, 40)), np.random.default_rng(0)
    draw, size = ImageDraw.Draw(image), 40
    spots = [
        (x + int(rng.integers(12)), y + int(rng.integers(12))) for x in range(60, 1500, 210) for y in (70, 600, 1110)
    ]
    colour = tuple(255 if place in (channel, 1) else 40 for place in range(3))
    for x, y in spots:
        draw.rectangle((x - size, y - size // 2, x + size, y + size // 2), fill=colour)
    data = encoded(image, "JPEG", quality=90)
    box = np.array([0, 0, *photo_wh], np.float32)
    factor, rows = view_needs(box, (canvas, canvas), 1.0, photo_wh)
    assert factor == {400: 2, 250: 4, 120: 8}[canvas]
    found = []
    for photo in (open_rgb(data, "a.jpg"), open_part(data, "a.jpg", factor, rows)):
        view, (height, width) = make_view(photo, box, (canvas, canvas))
        found.append(centres(view[:height, :width, channel], spots, size, photo_wh))
    assert np.abs(found[0] - found[1]).max() < 0.1
    ideal = (np.array(spots) + 0.5) * np.array([width, height]) / photo_wh - 0.5
    assert np.abs(found[1] - ideal).max() < 0.1


def view_error(data, box, canvas_hw, scale=1.0):
    """Factor, and mean and largest difference of a scaled view from the exact one, of 255."""
    exact = open_rgb(data, "a.jpg")
    factor, rows = view_needs(box, canvas_hw, scale, exact.size)
    one, (height, width) = make_view(exact, box, canvas_hw, scale)
    other, _ = make_view(open_part(data, "a.jpg", factor, rows), box, canvas_hw, scale)
    difference = np.abs(one.astype(int) - other)[:height, :width]
    return factor, difference.mean(), difference.max()


def test_whole_views_of_a_drawn_street_are_nearly_the_same():
    data = MiniSource("train_s", 1)[0]["image"]
    for scale, expected in ((1.0, 8), (0.8, 8)):
        factor, mean, _ = view_error(data, np.array([0, 0, 2048, 1536], np.float32), (160, 160), scale)
        assert factor == expected
        assert 0 < mean < MEAN_ERROR["drawn"]


@pytest.mark.parametrize(("name", "factors"), [("24244.jpg", (2, 2, 4)), ("21035.jpg", (1, 1, 2))])
def test_views_of_a_real_photo_are_nearly_the_same(shared_dir, name, factors):
    data = (shared_dir / "sorec" / "SODA-D" / "rawData" / "Images" / name).read_bytes()
    size, rng = photo_size(data, name), np.random.default_rng(0)
    for scale, expected in zip((1.0, 0.8, 0.6), factors, strict=True):
        factor, mean, largest = view_error(data, np.array([0, 0, *size], np.float32), (1024, 1024), scale)
        assert factor == expected
        assert mean < MEAN_ERROR["real"]
        assert largest < 30
    target = (size[0] // 3, size[1] // 2, size[0] // 3 + 40, size[1] // 2 + 30)
    for box in search_boxes(size, target, rng, SearchConfig())[1:]:
        assert view_error(data, box, (1024, 1024)) == (1, 0, 0)


# Samples


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.train(TEXTS, 120)


def street(kind="JPEG"):
    image = Image.open(io.BytesIO(record(0, (1600, 1200), target=40)["image"]))
    image = image.filter(ImageFilter.GaussianBlur(1))
    return {**record(0, (1600, 1200), target=40), "image": encoded(image, kind)}


def test_scaled_samples_have_the_labels_and_nearly_the_pixels_of_exact_ones(tokenizer):
    row, steps = street(), set()
    make = partial(random_sample, row, tokenizer)
    for seed in range(12):
        settings = {"canvas_hw": (256, 256), "max_tokens": 16, "scale_range": (0.6, 1.0)}
        scaled = make(SampleConfig(**settings), np.random.default_rng(seed))
        exact = make(SampleConfig(**settings, scaled_decode=False), np.random.default_rng(seed))
        for name in scaled.keys() - {"image"}:
            np.testing.assert_array_equal(scaled[name], exact[name])
        step = int(scaled["history_mask"].sum()) - 1
        difference = np.abs(scaled["image"].astype(int) - exact["image"])
        assert difference.mean() < 1
        assert difference.any() == (step == 0)
        steps.add(step)
    assert steps == {0, 1, 2}


def test_samples_do_not_depend_on_what_was_decoded_before(tokenizer):
    row = street()
    config = SampleConfig(canvas_hw=(256, 256), max_tokens=16, scale_range=(0.6, 1.0))

    def images(seeds, **options):
        return {
            seed: random_sample(row, tokenizer, config, np.random.default_rng(seed), **options)["image"]
            for seed in seeds
        }

    PHOTOS.clear()
    first, again, shared = images(range(8)), images(reversed(range(8))), images(range(8), shared=True)
    for seed in range(8):
        np.testing.assert_array_equal(first[seed], again[seed])
        np.testing.assert_array_equal(first[seed], shared[seed])
        PHOTOS.clear()
        np.testing.assert_array_equal(images([seed])[seed], first[seed])


def test_captions_are_scaled_too(tokenizer):
    row = {**street(), "phrases": (Phrase("the red car", ((10.0, 20.0, 60.0, 80.0),)),)}
    settings = {"canvas_hw": (200, 200), "max_tokens": 16}
    scaled, exact = (
        random_caption(row, tokenizer, CaptionConfig(**settings, scaled_decode=on), np.random.default_rng(0))
        for on in (True, False)
    )
    difference = np.abs(scaled["image"].astype(int) - exact["image"])
    assert 0 < difference.mean() < 1
    np.testing.assert_array_equal(scaled["target_boxes"], exact["target_boxes"])


def test_a_png_gives_the_same_sample_either_way(tokenizer):
    row = street("PNG")
    for seed in range(4):
        scaled, exact = (
            random_sample(
                row,
                tokenizer,
                SampleConfig(canvas_hw=(256, 256), max_tokens=16, scaled_decode=on),
                np.random.default_rng(seed),
            )["image"]
            for on in (True, False)
        )
        np.testing.assert_array_equal(scaled, exact)
