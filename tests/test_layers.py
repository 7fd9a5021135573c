"""Running a stack of equal layers: unrolled, scanned, recomputed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from piza_jax.errors import PizaError
from piza_jax.models.config import DetectorConfig
from piza_jax.models.layers import run_layers
from piza_jax.piza.detector import PizaConfig, PizaDetector
from piza_jax.plan.flops import matmul_flops
from piza_jax.training.objective import compute_losses
from tests import tiny_detector


class Layer(nnx.Module):
    """A frozen projection and a trained one, in each layer other weights."""

    def __init__(self, rngs):
        self.frozen = nnx.Linear(6, 12, rngs=rngs)
        self.trained = nnx.Linear(12, 6, rngs=rngs)
        self.absent = nnx.data(None)

    def __call__(self, x, shift):
        return jnp.sin(x + self.trained(jnp.tanh(self.frozen(x) + shift)))


class Stack(nnx.Module):
    def __init__(self, count):
        rngs = nnx.Rngs(0)
        self.layers = nnx.List([Layer(rngs) for _ in range(count)])


def run(count, remat, scan):
    """Output, gradients of the trained weights and of the input, and the program."""
    graph, trained, frozen = nnx.split(Stack(count), nnx.PathContains("trained"), ...)
    x = jax.random.normal(jax.random.key(1), (4, 6))

    def loss(trained, x, frozen):
        layers = nnx.merge(graph, trained, frozen, copy=True).layers
        out = run_layers(Layer.__call__, layers, x, jnp.float32(0.1), remat=remat, scan=scan)
        return jnp.sum(out**2), out

    function = jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)
    (_, out), gradient = jax.jit(function)(trained, x, frozen)
    return out, jax.tree.leaves(gradient), jax.make_jaxpr(function)(trained, x, frozen)


@pytest.mark.parametrize("remat", ["none", "layers", "dots"])
@pytest.mark.parametrize("count", [1, 3])
def test_scanned_layers_equal_unrolled_ones(count, remat):
    expected, gradients, program = run(count, "none", scan=False)
    for scan in (False, True):
        out, found, other = run(count, remat, scan)
        np.testing.assert_allclose(out, expected, rtol=1e-6)
        assert len(found) == len(gradients) == 2 * count + 1
        for one, same in zip(found, gradients, strict=True):
            np.testing.assert_allclose(one, same, rtol=1e-5, atol=1e-7)
        assert ("scan" in str(other)) == (scan and count > 1)
        # Recomputing costs the forward products once more, keeping the products with weights does not.
        more = matmul_flops(other) / matmul_flops(program)
        assert more > 1.2 if remat == "layers" else more == 1.0


def step_flops(**changes):
    """Matrix FLOPs of the losses and gradients of the tiny detector, and how long its program is."""
    config = PizaConfig(detector=DetectorConfig.preset("tiny", **changes), adapter_dim=8)
    model = nnx.eval_shape(lambda: PizaDetector(config, rngs=nnx.Rngs(0)))
    graph, state = nnx.split(model)

    def loss(state):
        return compute_losses(nnx.merge(graph, state, copy=True), tiny_detector.batch(2), jax.random.key(0))[0]

    program = jax.make_jaxpr(jax.grad(loss))(state)
    return matmul_flops(program), len(str(program))


def test_scanned_detector_does_the_same_work_in_a_shorter_program():
    flops, length = step_flops()
    same, shorter = step_flops(scan_layers=True)
    assert same == flops
    assert shorter < 0.95 * length  # two layers of each kind became one


def test_word_of_remat():
    assert DetectorConfig(remat=True).remat == "layers"
    assert DetectorConfig(remat=False).remat == "none"
    with pytest.raises(PizaError, match="model.detector.remat is 'all'; choose one of none, layers, dots"):
        DetectorConfig(remat="all")
