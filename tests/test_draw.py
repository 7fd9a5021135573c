"""Film strips: what is drawn where, that tiny boxes show, and that saving is all or nothing."""

import numpy as np
import pytest
from PIL import Image

from piza_jax.data.scenes import draw_scene
from piza_jax.draw import FOUND, LEAST_HEIGHT, TARGET, _font, _printable, _wrap, film_strip, save
from piza_jax.errors import PizaError
from piza_jax.piza.grounding import Grounding, Step

HEIGHT = 200
PAPER = 255


def make_grounding(size, target, num_steps, expression="The red car."):
    """A zoom that ends exactly on the target."""
    width, height = size
    whole = np.array([0, 0, width, height], float)
    boxes = [whole + (np.array(target) - whole) * (number / num_steps) ** 0.5 for number in range(num_steps + 1)]
    boxes = [tuple(map(float, box)) for box in boxes]
    steps = tuple(Step(boxes[t], boxes[t + 1], 0.5, t / num_steps, 0.1) for t in range(num_steps))
    return Grounding(expression, boxes[-1], 0.9, steps)


def grey(size):
    return Image.new("RGB", size, (128, 128, 128))


def places(strip, colour):
    """Rows and columns of the pixels of exactly this colour."""
    return np.argwhere(np.all(np.asarray(strip) == colour, axis=2))


def frames_found(strip):
    """Columns at which grey frames of the first row begin and end."""
    pixels = np.asarray(strip)
    row = next(line for line in pixels if (line == 128).all(axis=1).sum() > HEIGHT // 2)
    inside = (row != PAPER).any(axis=1)  # a frame that its view does not fill has a ground of its own
    edges = np.flatnonzero(np.diff(np.concatenate([[0], inside, [0]])))
    return list(zip(edges[::2], edges[1::2], strict=True))


@pytest.mark.parametrize(("num_steps", "in_first_row", "rows"), [(1, 2, 1), (3, 4, 1), (6, 4, 2)])
def test_a_frame_for_each_step_and_one_for_the_result(num_steps, in_first_row, rows):
    grounding = make_grounding((400, 400), (100, 120, 150, 170), num_steps)
    strip = film_strip(grey((400, 400)), grounding, height=HEIGHT)
    frames = frames_found(strip)
    assert [end - start for start, end in frames] == [HEIGHT] * in_first_row
    assert rows * 1.2 * HEIGHT < strip.height < rows * 1.6 * HEIGHT


def test_the_first_frame_shows_the_whole_photo_and_the_box_at_its_place():
    target = (100, 120, 180, 160)
    strip = film_strip(grey((400, 400)), make_grounding((400, 400), target, 1), height=HEIGHT)
    (start, end), _ = frames_found(strip)
    found = places(strip.crop((start, 0, end, strip.height)), FOUND)
    top = np.flatnonzero((np.asarray(strip)[:, start] == 128).all(axis=1))[0]
    low, high = found.min(axis=0) - (top, 0), found.max(axis=0) + 1 - (top, 0)
    # Half the photo's size, with a line of two pixels around it.
    np.testing.assert_allclose(low, (60 - 2, 50 - 2), atol=1)
    np.testing.assert_allclose(high, (80 + 2, 90 + 2), atol=1)


def test_the_last_frame_shows_the_result_large():
    photo = np.zeros((1000, 1000, 3), np.uint8) + 128
    photo[700:720, 300:320] = (10, 200, 10)
    strip = film_strip(photo, make_grounding((1000, 1000), (300, 700, 320, 720), 2), height=HEIGHT)
    pixels = np.asarray(strip).astype(int)
    green = (pixels[..., 1] - pixels[..., 0] > 150).sum(axis=0)
    start, end = frames_found(strip)[-1]
    assert green[start:end].max() == pytest.approx(HEIGHT / 2.5, abs=4)


@pytest.mark.parametrize("size", [(1600, 1200), (900, 1600), (6000, 600), (300, 4000)])
@pytest.mark.parametrize("corner", [0.0, 0.4, 1.0])
def test_boxes_of_a_few_pixels_stay_visible_in_every_shape_of_photo(size, corner):
    x, y = ((side - 3) * corner for side in size)
    target, whole = (x, y, x + 3, y + 2), (0.0, 0.0, float(size[0]), float(size[1]))
    grounding = Grounding("A dot.", target, 0.9, (Step(whole, target, 0.9, 0.0, 1.0),))
    strip = film_strip(grey(size), grounding, height=HEIGHT)
    assert strip.width < 4 * HEIGHT
    _, (start, _) = frames_found(strip)
    found = places(strip.crop((0, 0, start, strip.height)), FOUND)
    assert ((found.max(axis=0) - found.min(axis=0)) >= 7).all()
    assert len(found) >= 40


def test_found_and_target_both_show_where_they_coincide():
    target = (100, 120, 150, 170)
    grounding = make_grounding((400, 400), target, 2)
    plain = film_strip(grey((400, 400)), grounding, height=HEIGHT)
    strip = film_strip(grey((400, 400)), grounding, height=HEIGHT, target_xyxy=np.array(target, np.float32))
    assert len(places(plain, TARGET)) == 0
    (_, _), (_, _), (start, end) = frames_found(strip)
    result = strip.crop((start, 0, end, strip.height))
    assert min(len(places(result, FOUND)), len(places(result, TARGET))) > 150


def test_a_target_outside_a_crop_is_not_drawn_in_it():
    whole, corner = (0.0, 0.0, 400.0, 400.0), (0.0, 0.0, 100.0, 100.0)
    steps = (Step(whole, corner, 0.5, 0.0, 0.1), Step(corner, (10.0, 10.0, 60.0, 60.0), 0.5, 0.5, 1.0))
    grounding = Grounding("A dot.", steps[1].box, 0.5, steps)
    strip = film_strip(grey((400, 400)), grounding, height=HEIGHT, target_xyxy=(300, 300, 340, 340))
    first, second, _ = frames_found(strip)
    assert len(places(strip.crop((first[0], 0, first[1], strip.height)), TARGET)) > 20
    body = strip.crop((second[0], strip.height // 4, second[1], strip.height))
    assert len(places(body, TARGET)) == 0


def test_arrays_and_images_draw_the_same_strip_of_a_scene():
    image, records = draw_scene(3, (640, 480))
    grounding = make_grounding(image.size, records[0].box_xyxy, 3, records[0].expression)
    one = film_strip(image, grounding, target_xyxy=records[0].box_xyxy)
    other = film_strip(np.asarray(image), grounding, target_xyxy=records[0].box_xyxy)
    np.testing.assert_array_equal(np.asarray(one), np.asarray(other))


def test_long_expressions_are_wrapped_and_end_in_an_ellipsis():
    font = _font(15)
    text = "The sign to the left of the van " * 20
    lines = _wrap(text, 400, font, 2)
    assert len(lines) == 2
    assert all(font.getlength(line) <= 400 for line in lines)
    assert lines[1].endswith("…")
    assert text.startswith(" ".join(lines).rstrip("…"))
    assert _wrap("A short one.", 400, font, 2) == ["A short one."]
    assert _wrap("x" * 300, 400, font, 2)[0].endswith("…")


def test_letters_that_the_font_lacks_are_written_in_plain_ones():
    assert _printable("caf\u00e9 \u2013 \u201cna\u00efve\u201d \u8eca") == "cafe - \u201cnaive\u201d ?"


def test_mistakes_are_named():
    grounding = make_grounding((400, 300), (10, 10, 30, 30), 2)
    with pytest.raises(PizaError, match="300 x 400.*turned the same way"):
        film_strip(grey((300, 400)), grounding)
    with pytest.raises(PizaError, match="does not lie in the photo"):
        film_strip(grey((400, 300)), grounding, target_xyxy=(390, 10, 410, 30))
    with pytest.raises(PizaError, match=f"at least {LEAST_HEIGHT}"):
        film_strip(grey((400, 300)), grounding, height=10)
    with pytest.raises(PizaError, match=r"not float64 \[300, 400, 3\]"):
        film_strip(np.zeros((300, 400, 3)), grounding)


@pytest.mark.parametrize("suffix", [".png", ".JPG", ".jpeg", ".webp"])
def test_saved_pictures_read_back(tmp_path, suffix):
    picture = Image.new("RGBA", (40, 30), (200, 100, 50, 255))
    save(picture, tmp_path / f"strip{suffix}")
    with Image.open(tmp_path / f"strip{suffix}") as back:
        assert back.size == (40, 30)
        np.testing.assert_allclose(np.asarray(back.convert("RGB"))[15, 20], (200, 100, 50), atol=4)
    assert len(list(tmp_path.iterdir())) == 1


def test_saving_fails_with_the_cure_and_leaves_the_old_file(tmp_path, monkeypatch):
    picture = grey((8, 8))
    with pytest.raises(PizaError, match=r"strip\.txt.*\.png"):
        save(picture, tmp_path / "strip.txt")
    with pytest.raises(PizaError, match=r"no folder .*absent; create it"):
        save(picture, tmp_path / "absent" / "strip.png")
    path = tmp_path / "strip.png"
    path.write_bytes(b"old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("piza_jax.draw.os.replace", full)
    with pytest.raises(PizaError, match="No space left"):
        save(picture, path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
