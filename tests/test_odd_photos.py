"""Photos of every kind give the right box or an error that says what is wrong, from the loader to the command."""

import json
import re
import tracemalloc
from functools import lru_cache

import numpy as np
import pytest
from PIL import Image

import piza_jax
from piza_jax import cli
from piza_jax.data.photos import read_photo
from piza_jax.errors import PizaError
from tests import fake_detector, odd_photos


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Folder of the photos, the true box of the green patch, and the pixels of all."""
    folder = tmp_path_factory.mktemp("odd")
    photo, boxes = fake_detector.draw_patches(3, 300, 200)
    odd_photos.write(folder, photo)
    return folder, boxes["green"], photo


@pytest.fixture(scope="module")
def grounders():
    """Opens the grounder that finds patches, compiled once for each set of options."""
    model, load = fake_detector.loaded(fake_detector.PatchDetector, 2.0, canvas_hw=(96, 96)), piza_jax.load
    return lru_cache(lambda source, **options: load(model, **options, batch_size=1))


@pytest.fixture
def command(monkeypatch, grounders):
    """The piza command with that grounder, whatever the checkpoint is called."""
    monkeypatch.setattr(piza_jax, "load", grounders)
    return lambda *words: cli.main(["ground", *map(str, words), "--checkpoint=any", "--json"])


@pytest.mark.parametrize("name", [name for name in odd_photos.GOOD if "gr" not in name])
def test_the_box_is_right_in_the_pixels_that_a_viewer_shows(photos, command, name, capsys):
    folder, box, _ = photos
    assert command(folder / name, "green patch here", "--orientation=upright") == 0
    found = json.loads(capsys.readouterr().out)["box"]
    np.testing.assert_allclose(found, box, atol=2.5)


def test_grey_photos_are_read_in_their_full_range(photos):
    folder, _, photo = photos
    np.testing.assert_array_equal(read_photo(folder / "grey16.png"), photo[..., 1:2].repeat(3, axis=2))
    grey = np.asarray(Image.fromarray(photo).convert("L"))[..., None].repeat(3, axis=2)
    assert np.abs(read_photo(folder / "gray_alpha.webp").astype(int) - grey).max() <= 1


def test_by_default_boxes_count_in_the_pixels_as_stored(photos, command, capsys):
    folder, (x0, y0, x1, y1), _ = photos
    assert command(folder / "turned.jpg", "green patch here") == 0
    found = json.loads(capsys.readouterr().out)["box"]
    np.testing.assert_allclose(found, (y0, 300 - x1, y1, 300 - x0), atol=2.5)


@pytest.mark.parametrize(("name", "said"), odd_photos.BAD.items())
def test_what_is_no_photo_is_one_clear_line(photos, command, name, said, capsys):
    assert command(photos[0] / name, "green patch here") == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("piza: ")
    assert printed.err.count("\n") == 1
    assert name in printed.err
    assert re.search(said, printed.err)


def test_a_decompression_bomb_is_refused_before_it_is_decoded(photos):
    assert (photos[0] / "huge.png").stat().st_size < 200_000
    tracemalloc.start()
    with pytest.raises(PizaError, match=r"too large to decode safely.*shrink it"):
        read_photo(photos[0] / "huge.png")
    assert tracemalloc.get_traced_memory()[1] < 20e6
    tracemalloc.stop()


@pytest.mark.parametrize(("sentence", "said"), [("", "empty"), ("  \n", "empty"), ("patch " * 5000, "limit is 8")])
def test_no_sentence_and_five_thousand_words_are_refused(photos, command, sentence, said, capsys):
    assert command(photos[0] / "cmyk.jpg", sentence) == 2
    printed = capsys.readouterr().err
    assert said in printed
    assert len(printed) < 1000
