"""Line charts: lines lie where their numbers say, and noise does not hide them."""

import math

import numpy as np
import pytest

from piza_jax import PizaError
from piza_jax.draw_curve import line_chart

WORDS = {"title": "Loss", "across": "step", "up": "loss"}
BLUE, VERMILION = (0, 114, 178), (213, 94, 0)


def pixels(image, colour) -> np.ndarray:
    """Rows [n, 2] of (x, y) of a colour within the frame, below the legend."""
    found = np.argwhere((np.asarray(image) == colour).all(axis=-1))[:, ::-1]
    return found[found[:, 1] > 70]


def test_a_falling_line_falls_and_a_rising_one_rises():
    image = line_chart(
        {"a": [(x, 100 - x) for x in range(100)], "b": [(x, x) for x in range(100)]}, **WORDS, size=(500, 400)
    )
    assert image.size == (500, 400)
    down, up = (pixels(image, colour) for colour in (BLUE, VERMILION))
    assert np.corrcoef(down.T)[0, 1] > 0.99
    assert np.corrcoef(up.T)[0, 1] < -0.99


def test_noise_is_smoothed():
    noise = np.random.default_rng(0).uniform(-1, 1, 400)
    line = pixels(line_chart({"a": [(x, value) for x, value in enumerate(noise)]}, **WORDS), BLUE)
    assert np.ptp(line[:, 1]) < 0.4 * 344  # of the frame's height, which the values themselves fill


@pytest.mark.parametrize("points", [[(0, 3.0)], [(0, 2.0), (1, 2.0)], [(0, 1.0), (1, math.nan), (2, 3.0)]])
def test_one_point_equal_values_and_gaps_are_drawn(points):
    assert len(pixels(line_chart({"a": points}, **WORDS), BLUE)) > 3


def test_nothing_to_draw_is_said():
    with pytest.raises(PizaError, match="nothing to draw for 'Loss'"):
        line_chart({"a": [(0, math.nan)]}, **WORDS)
