"""One training step as a pure function over split parameters."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from flax import nnx

from piza_jax.models.params import unflatten_state
from piza_jax.training import sharding

Loss = Callable[[Any, dict[str, jax.Array], jax.Array], tuple[jax.Array, dict[str, jax.Array]]]


class TrainState(NamedTuple):
    """What a step takes and gives, changed.

    Attributes:
        step: int32 [], steps done.
        trainable: parameters {name: array}.
        optimizer: their optimiser state.
        seed: uint32 [], of all that is random in a step; an argument, so that runs of several seeds share a program.
    """

    step: Any
    trainable: dict[str, Any]
    optimizer: Any
    seed: Any = np.uint32(0)


def make_step(
    split_model: tuple[Any, nnx.State, nnx.State], loss: Loss, optimizer: optax.GradientTransformation
) -> Callable[[TrainState, dict[str, jax.Array], dict[str, jax.Array]], tuple[TrainState, dict[str, jax.Array]]]:
    """The pure training step (state, frozen, batch) -> (state, scalars), to be jitted.

    The random key is fold_in(key(state.seed), state.step): a resumed run draws what an uninterrupted one draws. Under
    a mesh (jax.set_mesh) parameters that are stored in shards are gathered where they are used.
    """
    graph, trainable_template, frozen_template = split_model

    def step(state: TrainState, frozen: dict[str, jax.Array], batch: dict[str, jax.Array]):
        key = jax.random.fold_in(jax.random.key(state.seed), state.step)

        def total(trainable: dict[str, jax.Array]) -> tuple[jax.Array, dict[str, jax.Array]]:
            whole = sharding.gather(trainable), sharding.gather(frozen)
            states = unflatten_state(trainable_template, whole[0]), unflatten_state(frozen_template, whole[1])
            # Without a copy the variables belong to an outer trace and the model cannot be differentiated.
            return loss(nnx.merge(graph, *states, copy=True), batch, key)

        (value, scalars), gradients = jax.value_and_grad(total, has_aux=True)(state.trainable)
        updates, optimizer_state = optimizer.update(gradients, state.optimizer, state.trainable)
        trainable = optax.apply_updates(state.trainable, updates)
        scalars = {**scalars, "loss": value, "grad_norm": optax.global_norm(gradients)}
        return TrainState(state.step + 1, trainable, optimizer_state, state.seed), scalars

    return step
