"""Switching a fine-tuning method off: the plain detector that it started from, bit for bit."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from flax import nnx

from piza_jax.errors import PizaError
from piza_jax.peft import select
from piza_jax.piza.abstract import abstract_detector
from piza_jax.piza.detector import PizaConfig, PizaDetector


def plain_config(config: PizaConfig) -> PizaConfig:
    """The same detector without a method, zoom embedding or history."""
    return dataclasses.replace(config, adapter="none", zoom_projection="none", history=False)


def switch_off(model: PizaDetector, method: str, original: Mapping[str, Any]) -> PizaDetector:
    """The detector that ``method`` was put on.

    What the method adds is left out; parameters that it trains are set back; the others, which it never changes, are
    shared with ``model``.

    Args:
        model: a model fine-tuned by ``method``.
        method: one of ``select.METHODS``.
        original: {name: array} of the detector before the training. Of it only the parameters that the method trains
            are used: the norms for parameter-efficient methods, everything for "full".

    Raises:
        PizaError: if ``original`` lacks such a parameter or has it in another shape.
    """
    plain = abstract_detector(plain_config(model.config))
    graph, expected, *rest = nnx.split(plain, nnx.Param, ...)
    values = dict(nnx.to_flat_state(nnx.state(model, nnx.Param)))
    pairs = []
    for path, abstract in nnx.to_flat_state(expected):
        name = "/".join(map(str, path))
        value = values[path].get_value()
        if select.is_trainable(method, name):
            if name not in original:
                raise PizaError(
                    f"{name} was trained by fine-tuning method {method!r} and its original value is not given; "
                    "take it from the weights that the training started from"
                )
            value = original[name]
        if tuple(value.shape) != tuple(abstract.shape):
            raise PizaError(
                f"the original {name} is {tuple(value.shape)} instead of {tuple(abstract.shape)}; "
                "take the weights that the training started from"
            )
        pairs.append((path, abstract.replace(value)))
    return nnx.merge(graph, nnx.from_flat_state(pairs), *rest, copy=True)
