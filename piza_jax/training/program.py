"""What a run compiles: the split model, its optimiser, where everything lies on the mesh, and the training step."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from ml_collections import ConfigDict

from piza_jax.errors import PizaError
from piza_jax.models.params import flatten_state
from piza_jax.training import optim, sharding
from piza_jax.training.step import Loss, TrainState, make_step

Split = Callable[[Any], tuple[Any, nnx.State, nnx.State]]


@dataclass(frozen=True)
class Task:
    """What is trained; the loop itself knows no detector.

    Attributes:
        make_model: builds the randomly initialised nnx.Module; is traced under jit, so it only uses jax.
        split: model -> (graphdef, trainable state, frozen state).
        loss: (model, batch of arrays [B, ...], key) -> (scalar, {name: scalar}).
        dataset: iterable of dicts of NumPy arrays [local B, ...]; its iterators are checkpointable (grain's are).
        steps_per_epoch: batches in one pass over the data.
        pretrained: {name: shape and dtype} -> {name: array} of the parameters to start from instead of random ones.
        evaluate: (model, step) -> {name: number}, run every config.evaluation.every steps and at the end.
    """

    make_model: Callable[[], nnx.Module]
    split: Split
    loss: Loss
    dataset: Iterable[Mapping[str, np.ndarray]]
    steps_per_epoch: float
    pretrained: Callable[[Mapping[str, jax.ShapeDtypeStruct]], Mapping[str, np.ndarray]] | None = None
    evaluate: Callable[[Any, int], Mapping[str, float]] | None = None


class Program:
    """The step of a task on a mesh, from shapes alone: nothing is allocated until it runs."""

    def __init__(self, task: Task, config: ConfigDict, mesh: jax.sharding.Mesh, num_steps: int):
        """Take a task and its configuration (see loop.fit) to a mesh, which may be of devices that are not here.

        Raises:
            PizaError: unknown optimiser settings, rules that match no parameter, nothing to train.
        """
        self.task, self.config, self.mesh, self.num_steps = task, config, mesh, num_steps
        self.split_model = task.split(nnx.eval_shape(task.make_model))
        settings = optim.OptimizerConfig.from_mapping(config.optimizer.to_dict())
        self.schedule = optim.make_schedule(settings, task.steps_per_epoch, num_steps)
        self.accumulate = settings.accumulate
        self.optimizer = optim.make_optimizer(settings, self.schedule)
        trainable, self.abstract_frozen = (flatten_state(state) for state in self.split_model[1:])
        optim.check_rules(settings, [*trainable, *self.abstract_frozen])
        if not trainable:
            raise PizaError(f"peft={config.get('peft')!r} leaves nothing to train")
        step, seed = (jax.ShapeDtypeStruct((), dtype) for dtype in (jnp.int32, jnp.uint32))
        self.abstract_state = TrainState(step, trainable, jax.eval_shape(self.optimizer.init, trainable), seed)
        self.state_shardings = sharding.state_shardings(mesh, self.abstract_state, config.mesh.min_shard_size)
        self.frozen_shardings = sharding.state_shardings(mesh, self.abstract_frozen, config.mesh.min_shard_size)
        self.step = jax.jit(
            make_step(self.split_model, task.loss, self.optimizer),
            donate_argnums=0,
            out_shardings=(self.state_shardings, sharding.replicated(mesh)),
        )

    def arguments(self) -> tuple[TrainState, dict[str, jax.ShapeDtypeStruct]]:
        """State and frozen parameters as shapes with their shardings: what step.lower and a restore take."""
        return (
            sharding.abstract(self.abstract_state, self.state_shardings),
            sharding.abstract(self.abstract_frozen, self.frozen_shardings),
        )
