"""Views: Pillow's pixels on a static canvas, and boxes that find their way back."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from piza_jax import PizaError
from piza_jax.data.views import content_hw, make_view, photo_to_view, view_to_photo
from piza_jax.ops.crop import content_size


@pytest.fixture(scope="module")
def photo():
    rng = np.random.default_rng(0)
    small = Image.fromarray(rng.integers(0, 256, (12, 16, 3), np.uint8))
    return np.asarray(small.resize((320, 240), Image.Resampling.BICUBIC))


def test_view_is_pillows_antialiased_resize_in_the_top_left_corner(photo):
    box = (30.25, 40.5, 250.0, 160.75)
    canvas, valid_hw = make_view(photo, np.array(box), (64, 96))
    height, width = valid_hw
    assert (height, width) == (53, 96)
    expected = Image.fromarray(photo).resize((96, 53), Image.Resampling.BILINEAR, box=box)
    np.testing.assert_array_equal(canvas[:height, :width], np.asarray(expected))
    assert not canvas[height:].any()


def test_array_and_image_give_the_same_view(photo):
    box = np.array([10, 20, 110, 220], np.float32)
    for from_array, from_image in zip(
        make_view(photo, box, (50, 50)), make_view(Image.fromarray(photo), box, (50, 50)), strict=True
    ):
        np.testing.assert_array_equal(from_array, from_image)


def test_enlarged_view_keeps_a_pixels_colour_at_its_place(photo):
    canvas, valid_hw = make_view(photo, np.array([100, 100, 104, 104]), (64, 64))
    np.testing.assert_array_equal(valid_hw, [64, 64])
    centres = canvas[8::16, 8::16].astype(int)
    # A pixel's centre falls between two samples, which lie a thirty-second of a pixel to its sides.
    assert np.abs(centres - photo[100:104, 100:104]).max() <= 4


@settings(max_examples=300, deadline=None)
@given(st.floats(0.5, 6000), st.floats(0.5, 6000), st.integers(8, 1400), st.integers(8, 1400), st.floats(0.1, 1))
def test_content_fits_the_canvas_and_keeps_the_aspect(width, height, rows, columns, content_scale):
    content = content_hw(np.array([0, 0, width, height]), (rows, columns), content_scale)
    assert 1 <= content[0] <= rows
    assert 1 <= content[1] <= columns
    scale = content_scale * min(rows / height, columns / width)
    np.testing.assert_allclose(content, np.maximum([height * scale, width * scale], 1), atol=0.51)


def test_content_size_is_that_of_the_crop_on_the_device():
    rng = np.random.default_rng(0)
    low, sides = rng.uniform(0, 2000, (500, 2)), rng.uniform(4, 3000, (500, 2))
    boxes = np.concatenate([low, low + sides], axis=1).astype(np.float32)
    on_device = content_size(boxes, (800, 1333))
    np.testing.assert_array_equal(on_device, [content_hw(box, (800, 1333)) for box in boxes])


def test_full_scale_content_touches_the_canvas():
    assert content_hw(np.array([0, 0, 4000, 3000]), (1024, 1024)) == (768, 1024)
    assert content_hw(np.array([0, 0, 4000, 3000]), (800, 1333)) == (800, 1067)
    assert content_hw(np.array([0, 0, 4000, 3000]), (1024, 1024), 0.5) == (384, 512)


@settings(max_examples=300, deadline=None)
@given(
    st.tuples(st.floats(0, 5000), st.floats(0, 4000), st.floats(8, 800), st.floats(8, 800)),
    st.lists(st.tuples(*[st.floats(0, 1)] * 4), min_size=1, max_size=5),
)
def test_boxes_come_back_from_the_view(view, fractions):
    x, y, w, h = view
    view_box = np.array([x, y, x + w, y + h])
    corners = np.sort(np.array(fractions).reshape(-1, 2, 2), axis=1)  # [N, 2, 2]
    boxes = (corners * [w, h] + [x, y]).reshape(-1, 4)
    inside = photo_to_view(boxes, view_box)
    assert inside.dtype == np.float32
    assert inside.min() >= 0
    assert inside.max() <= 1 + 1e-6
    np.testing.assert_allclose(view_to_photo(inside, view_box), boxes, atol=2e-3)


def test_box_of_a_target_in_a_view_marks_the_targets_pixels():
    photo = np.zeros((300, 400, 3), np.uint8)
    photo[120:150, 200:240] = 255
    view = np.array([150, 90, 270, 190], np.float32)
    canvas, (height, width) = make_view(photo, view, (128, 128))
    centre_x, centre_y, w, h = photo_to_view(np.array([200, 120, 240, 150]), view)
    rows, columns = np.nonzero(canvas[..., 0] > 127)
    assert columns.min() == pytest.approx((centre_x - w / 2) * width, abs=1)
    assert columns.max() + 1 == pytest.approx((centre_x + w / 2) * width, abs=1)
    assert rows.min() == pytest.approx((centre_y - h / 2) * height, abs=1)
    assert rows.max() + 1 == pytest.approx((centre_y + h / 2) * height, abs=1)


@pytest.mark.parametrize("box", [(0, 0, 321, 240), (-1, 0, 20, 20), (5, 5, 5, 9), (9, 9, 5, 20), (0, 0, np.nan, 9)])
def test_view_outside_the_photo_is_an_error(photo, box):
    with pytest.raises(PizaError, match="320 x 240"):
        make_view(photo, np.array(box, np.float32), (64, 64))
