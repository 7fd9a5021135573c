"""A zoom over its photo: each step's box in its colour, and the moving picture that ends on the box."""

import numpy as np
import pytest
from PIL import Image

from piza_jax.draw import FOUND, film_strip, step_colours
from piza_jax.draw_steps import save_gif, with_steps, zoom_frames
from piza_jax.errors import PizaError
from tests.test_draw import grey, make_grounding, places

SIZE, TARGET = (400, 300), (100, 120, 150, 170)


def test_colours_of_steps_differ_and_end_on_that_of_a_result():
    for count in range(1, 7):
        colours = step_colours(count)
        assert len(set(colours)) == count
        assert colours[-1] == FOUND


def test_each_box_is_drawn_in_the_colour_of_its_step():
    grounding = make_grounding(SIZE, TARGET, 3)
    picture = with_steps(grey(SIZE), grounding)
    for step, colour in zip(grounding.steps, step_colours(3), strict=True):
        rows, columns = places(picture, colour).T
        edge = columns.max() - step.box[2], rows.max() - step.box[3]
        assert np.abs(edge).max() <= 4
    assert (np.asarray(picture)[140, 125] == 128).all()  # what is in the box is not painted over


def test_a_large_photo_is_shrunk_and_a_box_of_a_pixel_still_shows():
    grounding = make_grounding((4000, 3000), (1000, 2000, 1001, 2001), 1)
    picture = with_steps(grey((4000, 3000)), grounding, longest_side=500)
    assert picture.size == (500, 375)
    rows, columns = places(picture, FOUND).T
    assert abs(rows.mean() - 250) < 12
    assert abs(columns.mean() - 125) < 12


def test_a_film_strip_may_have_the_same_colours():
    grounding = make_grounding(SIZE, TARGET, 3)
    strip = film_strip(grey(SIZE), grounding, coloured=True)
    assert all(len(places(strip, colour)) for colour in step_colours(3))
    assert not len(places(film_strip(grey(SIZE), grounding), step_colours(3)[0]))


@pytest.mark.parametrize("size", [(400, 300), (300, 900), (1200, 90)])
def test_the_camera_goes_from_the_whole_photo_to_the_box(size):
    photo = grey(size)
    target = (size[0] // 4, size[1] // 4, size[0] // 4 + 20, size[1] // 4 + 10)
    frames = list(zoom_frames(photo, make_grounding(size, target, 2), width=240))
    pictures, durations = zip(*frames, strict=True)
    assert len({picture.size for picture in pictures}) == 1
    assert pictures[0].width == 240
    assert min(durations) > 20  # browsers slow down frames of less
    assert not len(places(pictures[0], FOUND))
    columns = places(pictures[-1].crop((0, 30, 240, pictures[-1].height)), FOUND)[:, 1]  # without the label
    # The surroundings are 2.5 sides of the box, so it fills two fifths of the last picture's height.
    assert columns.max() - columns.min() == pytest.approx(pictures[0].height / 2.5, abs=5)
    assert abs((columns.max() + columns.min()) / 2 - 120) < 6


def test_a_gif_holds_every_frame_and_loops(tmp_path):
    grounding = make_grounding(SIZE, TARGET, 2)
    path = tmp_path / "zoom.gif"
    save_gif(grey(SIZE), grounding, path)
    with Image.open(path) as movie:
        assert movie.n_frames == len(list(zoom_frames(grey(SIZE), grounding)))
        assert movie.info["loop"] == 0
    assert [file.name for file in tmp_path.iterdir()] == ["zoom.gif"]


def test_bad_names_and_boxes_are_refused(tmp_path):
    grounding = make_grounding(SIZE, TARGET, 1)
    with pytest.raises(PizaError, match=r"must end in \.gif"):
        save_gif(grey(SIZE), grounding, tmp_path / "zoom.png")
    with pytest.raises(PizaError, match="there is no folder"):
        save_gif(grey(SIZE), grounding, tmp_path / "no" / "zoom.gif")
    with pytest.raises(PizaError, match="does not lie in the photo"):
        with_steps(grey((50, 50)), grounding)
    with pytest.raises(PizaError, match="does not lie in the photo"):
        next(zoom_frames(grey((50, 50)), grounding))
