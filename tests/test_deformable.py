"""Every form of deformable attention against its definition, one sampling point after another."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from piza_jax.ops.deformable import FORMS, deformable_attention

SHAPES_HW = ((5, 7), (3, 4))
ANYWHERE = [form for form in FORMS if form != "kernel"]  # which needs a GPU, see test_deformable_kernel


def operands(batch=3, queries=6, heads=2, points=2, channels=3):
    """Values, locations (some outside the levels) and attention weights."""
    rng = np.random.default_rng(0)
    cells = sum(h * w for h, w in SHAPES_HW)
    values = rng.normal(size=(batch, cells, heads, channels))
    locations = rng.uniform(-0.3, 1.3, (batch, queries, heads, len(SHAPES_HW), points, 2))
    attention = rng.uniform(size=locations.shape[:-1])
    return tuple(jnp.asarray(array, jnp.float32) for array in (values, locations, attention))


def by_definition(values, locations, attention):
    """Sum of bilinear samples, each over its four neighbours; those outside a level are zero."""
    start, total = 0, 0.0
    for level, (h, w) in enumerate(SHAPES_HW):
        grid = jnp.pad(values[:, start : start + h * w].reshape(values.shape[0], h, w, *values.shape[2:]), (
            (0, 0), (1, 1), (1, 1), (0, 0), (0, 0)))  # fmt: skip
        x, y = (locations[:, :, :, level, :, axis] * size - 0.5 for axis, size in ((0, w), (1, h)))  # [B, Q, heads, P]
        for dy in (0, 1):
            for dx in (0, 1):
                left, top = jnp.floor(x) + dx, jnp.floor(y) + dy
                weight = (1 - jnp.abs(x - left)) * (1 - jnp.abs(y - top)) * attention[:, :, :, level]
                column, row = (jnp.clip(c + 1, 0, n + 1).astype(int) for c, n in ((left, w), (top, h)))
                sample = jnp.arange(values.shape[0])[:, None, None, None]
                head = jnp.arange(values.shape[2])[None, None, :, None]
                total += jnp.sum(weight[..., None] * grid[sample, row, column, head], axis=3)
        start += h * w
    return total.reshape(*total.shape[:2], -1)


@pytest.mark.parametrize("form", ANYWHERE)
def test_a_form_equals_the_definition_with_its_gradients(form):
    inputs = operands()
    np.testing.assert_allclose(
        deformable_attention(*inputs, SHAPES_HW, form=form), by_definition(*inputs), rtol=1e-5, atol=1e-5
    )
    ours, theirs = (
        jax.grad(lambda *values, run=run: jnp.sum(jnp.sin(run(*values))), argnums=(0, 1, 2))(*inputs)
        for run in (lambda *values: deformable_attention(*values, SHAPES_HW, form=form), by_definition)
    )
    for got, expected in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)


def test_half_precision_keeps_its_dtype_and_adds_up_gradients_in_float32_in_the_direct_form():
    values, locations, attention = operands(queries=4000, points=2)
    values = values.astype(jnp.bfloat16)

    def total(values, form):
        return jnp.sum(deformable_attention(values, locations, attention, SHAPES_HW, form=form).astype(jnp.float32))

    exact = jax.grad(total)(values.astype(jnp.float32), "packed")
    errors = {}
    for form in ANYWHERE:
        assert deformable_attention(values, locations, attention, SHAPES_HW, form=form).dtype == jnp.bfloat16
        found = jax.grad(total)(values, form)
        assert found.dtype == jnp.bfloat16
        errors[form] = float(jnp.max(jnp.abs(found.astype(jnp.float32) - exact)) / jnp.max(jnp.abs(exact)))
    assert errors["direct"] < 2**-8 < errors["packed"]


def test_an_unknown_form_is_refused():
    with pytest.raises(ValueError, match="'npu' is none of direct, packed, kernel"):
        deformable_attention(*operands(), SHAPES_HW, form="npu")
