"""Which cells query selection may choose, at the limits that sizes in use lie on."""

from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from piza_jax.models.pyramid import build_pyramid, proposals

LOW, HIGH = Fraction(1, 100), Fraction(99, 100)


def inside(cells: int, count: int) -> np.ndarray:
    """By the definition, in fractions: the middle of a cell is in the content and between the limits."""
    places = [Fraction(2 * cell + 1, 2 * count) for cell in range(cells)]
    return np.array([place < 1 and LOW < place < HIGH for place in places])


@pytest.mark.parametrize(
    ("canvas_hw", "valid_hw"),
    [((800, 1072), (800, 1066)), ((1072, 800), (1000, 800)), ((1600, 800), (1600, 799)), ((64, 64), (40, 64))],
)
def test_a_cell_on_a_limit_is_left_out_as_its_definition_says(canvas_hw, valid_hw):
    shapes_hw = tuple((-(-canvas_hw[0] // side), -(-canvas_hw[1] // side)) for side in (8, 16, 32))

    @jax.jit
    def found(valid_hw):
        pyramid = build_pyramid(valid_hw, canvas_hw, shapes_hw, jnp.zeros((3, 4)))
        return proposals(pyramid)[1][0], pyramid.valid_hw[0]

    usable, counts = map(np.asarray, found(jnp.array([valid_hw])))
    start = 0
    for (h, w), (rows, columns) in zip(shapes_hw, counts.tolist(), strict=True):
        wanted = inside(h, rows)[:, None] & inside(w, columns)
        np.testing.assert_array_equal(usable[start : start + h * w].reshape(h, w), wanted)
        start += h * w
