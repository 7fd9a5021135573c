"""The training loop, in one order: batch, step, check, save, evaluate, report; and starting or resuming a run."""

import gc
import math
import os
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from ml_collections import ConfigDict

from piza_jax.errors import PizaError
from piza_jax.models.params import check_same, flatten_state, unflatten_state
from piza_jax.training import checkpoint, optim, sharding
from piza_jax.training.interrupt import StopSignal
from piza_jax.training.program import Program, Task
from piza_jax.training.reporting import Reporter, describe, is_first, say
from piza_jax.training.step import TrainState
from piza_jax.training.throughput import compile_step


class FitResult(NamedTuple):
    """Where a run ended: the step, the last scalars, whether a signal stopped it early, and the compiled step."""

    step: int
    scalars: dict[str, float]
    interrupted: bool
    compiled: jax.stages.Compiled | None = None


def fit(
    task: Task, config: ConfigDict, workdir: str | os.PathLike[str], compiled: jax.stages.Compiled | None = None
) -> FitResult:
    """Train task in workdir from its last checkpoint, or from the start where there is none.

    Args:
        task: what to train.
        config: seed, train.{batch_size, num_epochs, num_steps, log_every}, optimizer, mesh.{data, fsdp,
            tensor, min_shard_size}, checkpoint.{every, keep}, evaluation.every.
        workdir: folder of the run; see checkpoint.py and writer.py for what it holds.
        compiled: the step of an earlier fit whose configuration differs in the seed and the data alone, to run it
            instead of compiling it again.

    Raises:
        PizaError: a mesh or batch that does not fit, a workdir of another configuration, a loss that is not finite,
            data that ends early, a disk that is full.
    """
    mesh = sharding.mesh_of(config.mesh)
    sharding.check_batch(mesh, config.train.batch_size)
    num_steps = config.train.num_steps or max(round(config.train.num_epochs * task.steps_per_epoch), 1)
    if is_first():
        for note in checkpoint.prepare_workdir(workdir, config):
            say(f"changed since the last start: {note}")
    with jax.set_mesh(mesh), checkpoint.Checkpoints(workdir, keep=config.checkpoint.keep) as checkpoints:
        run = _Run(task, config, mesh, num_steps)
        iterator = iter(task.dataset)
        try:
            start, state, frozen = run.start(checkpoints, iterator)
            describe(mesh, state.trainable, frozen, Path(workdir))
            return run.train(start, state, frozen, iterator, checkpoints, Path(workdir), compiled)
        finally:
            if hasattr(iterator, "close"):
                iterator.close()  # its workers end here, and not with this process
            gc.collect()  # the last batch lies in shared memory, which nothing would free at exit


class _Run(Program):
    """One start of a run: its program, and the loop over it."""

    def start(self, checkpoints: checkpoint.Checkpoints, iterator: Any) -> tuple[int, TrainState, dict[str, jax.Array]]:
        """State and frozen parameters of the last checkpoint, or fresh ones, the frozen part of which is saved."""
        if checkpoints.latest is None:
            state, frozen = self._initialise()
            checkpoints.save_frozen(frozen)
            return 0, state, frozen
        target, target_frozen = self.arguments()
        step, trainable, optimizer = checkpoints.restore(target.trainable, target.optimizer, iterator)
        frozen = checkpoints.restore_frozen(target_frozen)
        say(f"resumed from step {step}")
        return step, self._state(step, trainable, optimizer), frozen

    def _state(self, step: int, trainable: dict[str, jax.Array], optimizer: Any) -> TrainState:
        counter = jax.device_put(jnp.int32(step), self.state_shardings.step)
        seed = jax.device_put(np.uint32(self.config.seed % 2**32), self.state_shardings.seed)
        return TrainState(counter, trainable, optimizer, seed)

    def _initialise(self) -> tuple[TrainState, dict[str, jax.Array]]:
        scales = self.config.train.get("initial_scales", ())
        names = {**self.abstract_state.trainable, **self.abstract_frozen}
        given = self.task.pretrained(names) if self.task.pretrained else {}
        if self.task.pretrained:
            check_same({name: names[name] for name in given if name in names}, given, "the pretrained model")
            rest = [name for name in names if name not in given]
            say(f"{len(given)} arrays are pretrained, {len(rest)} start at random" + _examples(rest))

        def random(part: Mapping[str, Any]) -> dict[str, Any]:
            return {name: leaf for name, leaf in part.items() if name not in given}

        def parameters() -> tuple[dict[str, jax.Array], ...]:
            # What is given is left out, so that no program is compiled that draws it at random.
            parts = [random(flatten_state(state)) for state in self.task.split(self.task.make_model())[1:]]
            return tuple({name: x * optim.first_factor(scales, name) for name, x in part.items()} for part in parts)

        shardings = self.state_shardings.trainable, self.frozen_shardings
        trainable, frozen = sharding.initialise(parameters, tuple(random(part) for part in shardings))
        for part, places in zip((trainable, frozen), shardings, strict=True):
            for name in places.keys() & given.keys():
                part[name] = jax.device_put(np.asarray(given[name], names[name].dtype), places[name])
        optimizer = jax.jit(self.optimizer.init, out_shardings=self.state_shardings.optimizer)(trainable)
        return self._state(0, trainable, optimizer), frozen

    def train(
        self,
        start: int,
        state: TrainState,
        frozen: dict[str, jax.Array],
        iterator: Iterator[Mapping[str, np.ndarray]],
        checkpoints: checkpoint.Checkpoints,
        workdir: Path,
        compiled: jax.stages.Compiled | None = None,
    ) -> FitResult:
        """Steps start..num_steps - 1."""
        config = self.config
        scalars: dict[str, Any] = {}
        with Reporter(workdir, start, self.num_steps, config) as reporter, StopSignal() as stop:
            if start and self._evaluation_due(start) and not reporter.evaluated(start):
                reporter.evaluation(start, partial(self._evaluate, start, state, frozen))  # killed before it ended
            if start >= self.num_steps:
                say(f"nothing to do: the run in {workdir} has all its {self.num_steps} steps")
            for step in range(start + 1, self.num_steps + 1):
                batch = sharding.put_batch(self.mesh, _next(iterator, step, self.num_steps))
                if compiled is None:
                    lowered = self.step.lower(state, frozen, batch)
                    compiled, cost = compile_step(lowered, self.mesh.size, _memory_limit())
                    reporter.cost(cost)
                state, on_device = compiled(state, frozen, batch)
                # One step behind, so that the host prepares a batch while the device computes.
                _check_finite(scalars, step - 1, checkpoints)
                last, interrupted = step == self.num_steps, stop.requested(step)
                scalars = on_device
                saving = last or interrupted or step % config.checkpoint.every == 0
                logging = last or interrupted or step % config.train.log_every == 0
                if saving or logging:
                    scalars = {name: float(value) for name, value in jax.device_get(on_device).items()}
                    _check_finite(scalars, step, checkpoints)
                reporter.step(step)
                if logging:  # before the save, so that a resumed run has every line up to its first step
                    rate = float(self.schedule((step - 1) // self.accumulate))
                    reporter.write(step, {**scalars, "learning_rate": rate})
                if saving:  # before the iterator moves on
                    checkpoints.save(step, state.trainable, state.optimizer, iterator)
                if self._evaluation_due(step) and not interrupted:
                    reporter.evaluation(step, partial(self._evaluate, step, state, frozen))
                if interrupted:
                    checkpoints.wait()
                    say(f"stopped by a signal after step {step}, which is saved; start again to go on")
                    return FitResult(step, scalars, True, compiled)
        checkpoints.wait()
        return FitResult(max(start, self.num_steps), scalars, False, compiled)

    def _evaluation_due(self, step: int) -> bool:
        every = self.config.evaluation.every
        return self.task.evaluate is not None and (step == self.num_steps or (bool(every) and step % every == 0))

    def _evaluate(self, step: int, state: TrainState, frozen: dict[str, jax.Array]) -> Mapping[str, float]:
        assert self.task.evaluate is not None
        graph, *templates = self.split_model
        states = [unflatten_state(*pair) for pair in zip(templates, (state.trainable, frozen), strict=True)]
        return self.task.evaluate(nnx.merge(graph, *states, copy=True), step)


def _memory_limit() -> int | None:
    """Bytes of the first device here, where it tells them."""
    return (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit")


def _next(iterator: Iterator[Mapping[str, np.ndarray]], step: int, num_steps: int) -> Mapping[str, np.ndarray]:
    try:
        return next(iterator)
    except StopIteration:
        raise PizaError(f"the data ended at step {step} of {num_steps}; repeat it or lower train.num_steps") from None


def _check_finite(scalars: Mapping[str, Any], step: int, checkpoints: checkpoint.Checkpoints) -> None:
    bad = [name for name in ("loss", "grad_norm") if name in scalars and not math.isfinite(float(scalars[name]))]
    if bad:
        last = checkpoints.latest
        good = f"checkpoint of step {last} in {checkpoints.workdir}" if last is not None else "none was written yet"
        raise PizaError(
            f"{bad[0]} is {float(scalars[bad[0]])} at step {step}; nothing of it was saved. "
            f"Last good checkpoint: {good}. "
            "Lower optimizer.learning_rate, add optimizer.warmup_steps, or look at the samples of that step"
        )


def _examples(names: list[str]) -> str:
    return f": {', '.join(names[:4])}{', ...' if len(names) > 4 else ''}" if names else ""
