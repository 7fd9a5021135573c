"""Words that name ways to look, and how wrong ones are refused."""

import numpy as np
import pytest

from piza_jax.errors import PizaError
from piza_jax.evaluation.methods import Method, Slicing, method_of
from piza_jax.evaluation.slices import grid, sliding, whole

WINDOW = {"window_wh": (1024, 1024), "overlap": 0.2}


@pytest.mark.parametrize(
    ("word", "kind", "fields"),
    [
        ("piza", "piza", {}),
        ("training_free", "training_free", {}),
        ("single", "single", {}),
        ("single:800", "single", {"short_side": 800}),
        ("grid:3x2", "slices", {"slicing": Slicing(rows=3, columns=2)}),
        ("grid:3", "slices", {"slicing": Slicing(rows=3, columns=3)}),
        ("grid:3x3:full", "slices", {"slicing": Slicing(rows=3, columns=3, full=True)}),
        ("sliding:1024", "slices", {"slicing": Slicing(**WINDOW)}),
        ("sliding:1024:0.2", "slices", {"slicing": Slicing(**WINDOW)}),
        ("sliding:640x480:0", "slices", {"slicing": Slicing(window_wh=(640, 480), overlap=0.0)}),
        ("sliding:1024:full:score", "slices", {"slicing": Slicing(**WINDOW, full=True)}),
        ("sliding:1024:0.2:nms:iou=0.6", "slices", {"slicing": Slicing(merging="nms", metric="iou", threshold=0.6)}),
        (
            "sliding:1024:nmm:ios=.7:min_score=0",
            "slices",
            {"slicing": Slicing(merging="nmm", threshold=0.7, min_score=0)},
        ),
    ],
)
def test_words_are_read(word, kind, fields):
    assert method_of(word) == Method(word, kind, **fields)


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("", "there is no method ''; known are piza"),
        ("slide:3", "there is no method 'slide:3'"),
        ("piza:3", "there is no method 'piza:3'"),
        ("grid", "there is no method 'grid'"),
        ("single:800:full", "there is no method 'single:800:full'"),
        ("single:0", "'0' is no whole number above 0"),
        ("single:big", "'big' is no whole number above 0"),
        ("grid:3x", "'' is no whole number above 0"),
        ("grid:3x3x3", "'3x3' is no whole number above 0"),
        ("sliding:-5", "'-5' is no whole number above 0"),
        ("sliding:1024:1", "overlap of sliding windows is 1.0"),
        ("sliding:1024:0.2:0.3", "unknown option '0.3'; known are full, score"),
        ("grid:3x3:0.2", "unknown option '0.2'"),
        ("grid:3x3:nms=0.5", "unknown option 'nms=0.5'"),
        ("grid:3x3:iou", "unknown option 'iou'"),
        ("grid:3x3:iou=0", "threshold is 0.0"),
        ("grid:3x3:ios=2", "threshold is 2.0"),
        ("grid:3x3:min_score=2", "min_score is 2.0"),
        ("grid:3x3:nms:score", "'score' says again"),
        ("grid:3x3:ios=0.5:iou=0.5", "'iou=0.5' says again"),
    ],
)
def test_other_words_are_refused(word, message):
    with pytest.raises(PizaError) as caught:
        method_of(word)
    assert message in str(caught.value)


def test_the_full_view_comes_last_and_never_twice():
    photo_wh = (1000, 700)
    cut = method_of("sliding:300x200:0.5:full").slicing.boxes(photo_wh)
    np.testing.assert_array_equal(cut, np.concatenate([sliding(photo_wh, (300, 200), 0.5), whole(photo_wh)]))
    cut = method_of("grid:2x3").slicing.boxes(photo_wh)
    np.testing.assert_array_equal(cut, grid(photo_wh, 2, 3))
    assert method_of("sliding:1024:full").slicing.boxes(photo_wh).tolist() == [[0, 0, 1000, 700]]
    assert method_of("grid:1x1:full").slicing.boxes(photo_wh).tolist() == [[0, 0, 1000, 700]]


def test_slicing_refuses_unknown_words():
    with pytest.raises(PizaError, match="merging is 'soft'"):
        Slicing(merging="soft")
    with pytest.raises(PizaError, match="metric is 'giou'"):
        Slicing(metric="giou")
    with pytest.raises(PizaError, match="0 x 3 tiles"):
        Slicing(columns=3)
