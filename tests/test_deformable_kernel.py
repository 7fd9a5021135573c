"""The kernels of a GPU, run by Pallas' interpreter, and which GPU takes them."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from piza_jax.ops import deformable, deformable_kernel
from piza_jax.ops.deformable import deformable_attention
from piza_jax.ops.platforms import for_any_platform
from tests.test_deformable import SHAPES_HW, by_definition, operands


def interpreted(*inputs):
    return deformable_kernel.sample(*inputs, SHAPES_HW, interpret=True)


def gradients(run, inputs):
    return jax.jit(jax.grad(lambda *values: jnp.sum(jnp.sin(run(*values))), argnums=(0, 1, 2)))(*inputs)


@pytest.mark.parametrize("sizes", [{}, {"queries": 37, "heads": 1, "channels": 4, "batch": 1}])
def test_the_kernels_equal_the_definition_with_its_gradients(sizes):
    inputs = operands(**sizes)  # pairs that fill no block, channels that are no power of two
    np.testing.assert_allclose(interpreted(*inputs), by_definition(*inputs), rtol=1e-5, atol=1e-5)
    for got, expected in zip(gradients(interpreted, inputs), gradients(by_definition, inputs), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)


def test_half_precision_keeps_its_dtype_and_adds_up_gradients_in_float32():
    values, locations, attention = operands(batch=1, queries=400, heads=1)
    values = values.astype(jnp.bfloat16)

    def total(values, run):
        return jnp.sum(run(values, locations, attention).astype(jnp.float32))

    assert interpreted(values, locations, attention).dtype == jnp.bfloat16
    found = jax.jit(jax.grad(lambda values: total(values, interpreted)))(values)
    exact = jax.grad(total)(values.astype(jnp.float32), by_definition)
    assert found.dtype == jnp.bfloat16
    assert jnp.max(jnp.abs(found.astype(jnp.float32) - exact)) < 2**-8 * jnp.max(jnp.abs(exact))


def lowered(form, batch=3):
    def both(*inputs):
        out, back = jax.vjp(lambda *values: deformable_attention(*values, SHAPES_HW, form=form), *inputs)
        return back(out)

    return jax.jit(both).trace(*operands(batch)).lower(lowering_platforms=("cuda",)).as_text()


def test_a_program_for_cuda_has_one_kernel_each_way_and_an_exported_one_none():
    assert lowered("kernel").count("xla.gpu.triton") == 2
    with for_any_platform():  # what is exported runs on older GPUs too
        assert "triton" not in lowered(None)


def test_under_a_mesh_each_device_has_kernels_of_its_own_samples_and_heads():
    mesh = jax.make_mesh((4, 2), ("data", "tensor"), axis_types=(jax.sharding.AxisType.Auto,) * 2)
    with jax.set_mesh(mesh):
        calls = [line for line in lowered("kernel", batch=8).splitlines() if "xla.gpu.triton" in line]
    assert len(calls) == 2
    pairs, samples = 6 * 1, 2 * 2  # of 6 queries and 2 heads, of 2 levels and 2 points
    assert all(f"tensor<2x{pairs}x{samples}xf32>" in line for line in calls)


def test_arrays_that_the_kernels_cannot_count_have_the_direct_form(monkeypatch):
    inputs = operands()
    monkeypatch.setattr(deformable_kernel, "_MOST_ELEMENTS", 100)
    found = deformable_attention(*inputs, SHAPES_HW, form="kernel")
    np.testing.assert_array_equal(found, deformable_attention(*inputs, SHAPES_HW, form="direct"))


@pytest.fixture
def gpus(monkeypatch):
    """Pretends that there are GPUs of some compute capabilities."""

    def pretend(*capabilities):
        devices = [SimpleNamespace(compute_capability=one) for one in capabilities]
        monkeypatch.setattr(jax, "local_devices", lambda backend: devices)

    deformable._takes_kernels.cache_clear()
    yield pretend
    deformable._takes_kernels.cache_clear()


@pytest.mark.parametrize(
    ("capabilities", "form"),
    [(("9.0", "9.0"), "kernel"), (("8.0",), "kernel"), (("7.5", "9.0"), "direct"), (("gfx942",), "direct")],
)
def test_a_gpu_takes_the_kernels_from_ampere_on(gpus, capabilities, form):
    gpus(*capabilities)
    assert deformable._form_for("gpu") == form


@pytest.mark.parametrize(
    ("flags", "form"),
    [
        ("--xla_gpu_deterministic_ops=true --xla_gpu_autotune_level=0", "direct"),
        ("--xla_gpu_exclude_nondeterministic_ops", "direct"),
        ("--xla_gpu_deterministic_ops=false", "kernel"),
    ],
)
def test_flags_that_ask_for_results_that_can_be_repeated_get_them(gpus, monkeypatch, flags, form):
    gpus("9.0")
    monkeypatch.setenv("XLA_FLAGS", flags)
    assert deformable._form_for("gpu") == form


def test_a_plan_for_a_gpu_that_is_not_here_has_the_direct_form():
    deformable._takes_kernels.cache_clear()
    assert deformable._form_for("gpu") == "direct"
    assert deformable._form_for("tpu") == "packed"
    assert deformable._form_for(None) is None
