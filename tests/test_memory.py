"""What the backward pass keeps: choosing what trains, and what is recomputed, decides it."""

import math

import jax
import pytest
from flax import nnx

from piza_jax.errors import PizaError
from piza_jax.models.params import flatten_state
from piza_jax.peft import select
from piza_jax.piza.detector import PizaDetector
from piza_jax.plan.flops import matmul_flops
from piza_jax.training import config as configs
from piza_jax.training.objective import compute_losses
from tests import tiny_detector
from tests.test_task import ROOT

BACKBONES = ("detector/(backbone|bert)/",)


def kept(freeze=(), **changes):
    """Bytes that a step of PIZA-Adapter+ keeps for its backward pass, and its matrix FLOPs; nothing is computed."""
    model = nnx.eval_shape(lambda: PizaDetector(tiny_detector.model_config(**changes), rngs=nnx.Rngs(0)))
    graph, trained, frozen = select.split(model, "piza_adapter_plus", freeze)
    batch = tiny_detector.batch(2)

    def loss(trained, frozen):
        return compute_losses(nnx.merge(graph, trained, frozen, copy=True), batch, jax.random.key(0))[0]

    residuals = jax.eval_shape(lambda *states: jax.vjp(lambda own: loss(own, states[1]), states[0])[1], trained, frozen)
    size = sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(residuals))
    return size, matmul_flops(jax.make_jaxpr(jax.grad(loss))(trained, frozen))


def test_nothing_is_kept_for_parts_that_no_gradient_reaches():
    size, flops = kept()
    less, fewer = kept(BACKBONES)
    assert less < 0.7 * size
    assert fewer < flops


def test_recomputed_layers_keep_less_and_cost_more():
    size, flops = kept()
    less, more = kept(remat="layers")
    between, _ = kept(remat="dots")
    assert less < between < size
    assert more > 1.1 * flops


def test_freeze_takes_norms_out_of_what_trains():
    model = nnx.eval_shape(tiny_detector.make_model)
    names = set(flatten_state(select.split(model, "piza_adapter_plus")[1]))
    fewer = set(flatten_state(select.split(model, "piza_adapter_plus", BACKBONES)[1]))
    gone = names - fewer
    assert fewer < names
    assert all(name.startswith(("detector/backbone/", "detector/bert/")) for name in gone)
    assert any("adapter1" in name for name in fewer)
    assert not any("/backbone/" in name or "/bert/" in name for name in fewer)
    with pytest.raises(PizaError, match=r"freeze: 'spine/' matches nothing that 'piza_adapter_plus' trains"):
        select.split(model, "piza_adapter_plus", ("spine/",))
    with pytest.raises(PizaError, match=r"freeze: '\(' is not a regular expression"):
        select.split(model, "piza_adapter_plus", ("(",))


def test_settings_of_tpus():
    for name in ("piza_sorec.py", "full_finetune.py"):
        detector = configs.load_config(f"{ROOT / 'configs' / name}:tpu").model.detector
        assert (detector.dtype, detector.remat, detector.scan_layers) == ("bfloat16", "layers", True)
        assert configs.load_config(str(ROOT / "configs" / name)).model.detector.dtype == "float32"
