"""Decoding: always RGB in stored pixels, and damage is an error that names the image."""

import contextlib
import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from piza_jax import PizaError
from piza_jax.data.decode import decode_rgb
from tests.small_source import encoded


@pytest.fixture(scope="module")
def pixels():
    rng = np.random.default_rng(0)
    small = Image.fromarray(rng.integers(0, 256, (6, 8, 3), np.uint8))
    return np.asarray(small.resize((64, 48), Image.Resampling.BICUBIC))


def test_png_comes_back_exactly(pixels):
    decoded = decode_rgb(encoded(Image.fromarray(pixels)), "a.png")
    assert decoded.dtype == np.uint8
    np.testing.assert_array_equal(decoded, pixels)


def test_jpeg_comes_back_nearly(pixels):
    decoded = decode_rgb(encoded(Image.fromarray(pixels), "JPEG", quality=95), "a.jpg").astype(int)
    assert np.abs(decoded - pixels).mean() < 4


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied_only_on_request(pixels, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(Image.fromarray(pixels), "PNG", exif=exif)
    np.testing.assert_array_equal(decode_rgb(data, "a.png"), pixels)
    turned = {
        1: pixels,
        2: pixels[:, ::-1],
        3: pixels[::-1, ::-1],
        4: pixels[::-1],
        5: pixels.swapaxes(0, 1),
        6: np.rot90(pixels, -1),
        7: pixels.swapaxes(0, 1)[::-1, ::-1],
        8: np.rot90(pixels, 1),
    }
    np.testing.assert_array_equal(decode_rgb(data, "a.png", "upright"), turned[orientation])


def test_grey_becomes_three_equal_channels(pixels):
    grey = pixels[..., 0]
    decoded = decode_rgb(encoded(Image.fromarray(grey)), "a.png")
    np.testing.assert_array_equal(decoded, np.stack([grey] * 3, axis=-1))


def test_16_bit_grey_keeps_its_upper_byte(pixels):
    grey = pixels[..., 0].astype(np.uint16) * 257
    decoded = decode_rgb(encoded(Image.fromarray(grey)), "a.png")
    np.testing.assert_array_equal(decoded[..., 1], pixels[..., 0])


def test_cmyk_jpeg_keeps_its_colours(pixels):
    data = encoded(Image.fromarray(pixels).convert("CMYK"), "JPEG", quality=95)
    assert np.abs(decode_rgb(data, "a.jpg").astype(int) - pixels).mean() < 4


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA"])
def test_transparent_parts_become_white(pixels, mode):
    layer = Image.fromarray(pixels)
    layer.putalpha(Image.fromarray(np.where(np.arange(64) < 32, 255, 0)[None].repeat(48, 0).astype(np.uint8)))
    if mode == "PA":
        data = encoded(layer.quantize(), "PNG")
    else:
        data = encoded(layer.convert(mode), "PNG")
    decoded = decode_rgb(data, "a.png")
    assert (decoded[:, 32:] == 255).all()
    assert np.abs(decoded[:, :32].astype(int).mean() - pixels[:, :32].mean()) < 8


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("part", [0.03, 0.3, 0.9])
def test_cut_short_image_is_an_error_that_names_it(pixels, kind, part):
    data = encoded(Image.fromarray(pixels), kind)
    with pytest.raises(PizaError, match=r"photo_7"):
        decode_rgb(data[: int(len(data) * part)], "photo_7")


@pytest.mark.parametrize("data", [b"", b"not an image", b"\xff\xd8\xff\xe0" + bytes(20)])
def test_what_is_no_image_is_an_error_that_names_it(data):
    with pytest.raises(PizaError, match=r"photo_7"):
        decode_rgb(data, "photo_7")


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(["JPEG", "PNG"]), st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=8))
def test_damage_never_escapes_as_another_exception(kind, damage):
    data = bytearray(encoded(Image.new("RGB", (32, 24), "red"), kind))
    for place, value in damage:
        data[int(place * (len(data) - 1))] = value
    with contextlib.suppress(PizaError):
        decoded = decode_rgb(bytes(data), "photo_7")
        assert decoded.shape[2:] == (3,)
        assert decoded.dtype == np.uint8


def test_floating_point_image_is_an_error():
    data = io.BytesIO()
    Image.fromarray(np.ones((4, 4), np.float32)).save(data, "TIFF")
    with pytest.raises(PizaError, match="8-bit RGB"):
        decode_rgb(data.getvalue(), "a.tif")


def test_real_photo_decodes_at_its_stored_size(shared_dir):
    path = shared_dir / "sorec" / "SODA-D" / "rawData" / "Images" / "24244.jpg"
    assert decode_rgb(path.read_bytes(), path.name).shape == (3000, 4000, 3)
