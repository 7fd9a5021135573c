"""The abstract detector is what flax's own shape evaluation gives."""

import jax
import pytest
from flax import nnx

from piza_jax.piza.abstract import abstract_detector
from piza_jax.piza.detector import PizaDetector
from tests import tiny_detector


@pytest.mark.parametrize("changes", [{}, {"class_bias": False, "shared_box_head": True}], ids=["mm", "original"])
def test_abstract_detector_is_the_evaluated_one(changes):
    config = tiny_detector.model_config(**changes)
    graphs, states = zip(
        nnx.split(abstract_detector(config)),
        nnx.split(nnx.eval_shape(lambda: PizaDetector(config, rngs=nnx.Rngs(0)))),
        strict=True,
    )
    assert graphs[0] == graphs[1]
    assert jax.tree.structure(states[0]) == jax.tree.structure(states[1])
    leaves = jax.tree.leaves(states[0])
    assert leaves == jax.tree.leaves(states[1])
    assert {type(leaf) for leaf in leaves} == {jax.ShapeDtypeStruct}
