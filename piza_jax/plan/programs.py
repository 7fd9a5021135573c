"""The real training step and zoom loop, traced and compiled from shapes alone for devices that need not be here."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from ml_collections import ConfigDict

from piza_jax.data.captions import caption_fields
from piza_jax.data.samples import sample_fields
from piza_jax.models.params import unflatten_state
from piza_jax.piza.detector import config_from_dict
from piza_jax.piza.locate import locate
from piza_jax.piza.zoom import zoom_config_of
from piza_jax.plan.chips import find_chip
from piza_jax.plan.collectives import Collective, read_collectives
from piza_jax.plan.flops import matmul_flops, unknown_loops
from piza_jax.training import sharding
from piza_jax.training.program import Program, Task
from piza_jax.training.task import caption_config, model_parts, sample_config
from piza_jax.training.throughput import needed_bytes

Traced = Callable[[], jax.stages.Traced]


@dataclass(frozen=True)
class Measured:
    """Facts of a compiled program; bytes are those of one device.

    Attributes:
        batch: samples of a call, over all devices.
        parts: bytes of each kind of argument: trained and frozen parameters, optimizer, inputs.
        arguments: bytes of all arguments as they lie in memory.
        temporaries: bytes that the program needs beside arguments and results.
        total: bytes that it needs at once.
        flops: matrix FLOPs of all devices.
        unknown_loops: loops that flops counts once, as their length is not known.
        traffic: bytes read and written by the compiler's count, which takes the body of a loop once; None if not told.
        collectives: what devices send each other.
        fits: whether the compiler could place it, in what a chip of a known kind has by its own count; where it could
            not, only total is known, and None if it did not say.
    """

    batch: int
    parts: Mapping[str, int]
    flops: float
    unknown_loops: int
    fits: bool
    total: int | None
    arguments: int | None = None
    temporaries: int | None = None
    traffic: float | None = None
    collectives: tuple[Collective, ...] = ()


def make_program(config: ConfigDict, mesh: Mesh, steps_per_epoch: float = 1.0) -> Program:
    """The training program of a configuration, without data or weights.

    Raises:
        PizaError: a configuration that training would refuse.
    """
    task = Task(
        **model_parts(config, config_from_dict(config.model.to_dict())), dataset=(), steps_per_epoch=steps_per_epoch
    )
    return Program(task, config, mesh, max(round(config.train.num_epochs * steps_per_epoch), 1))


def measure_step(program: Program, batch: int) -> Measured:
    """Trace and compile the training step for a batch over all devices.

    Raises:
        PizaError: a batch that does not divide over the mesh.
    """
    mesh, config = program.mesh, program.config
    sharding.check_batch(mesh, batch)
    fields = (
        caption_fields(caption_config(config)) if config.data.get("captions") else sample_fields(sample_config(config))
    )
    inputs = {
        name: jax.ShapeDtypeStruct((batch, *shape), dtype, sharding=sharding.batch_sharding(mesh))
        for name, (shape, dtype) in fields.items()
    }
    state, frozen = program.arguments()
    parts = {"trained": state.trainable, "frozen": frozen, "optimizer": state.optimizer, "inputs": inputs}
    return _measure(lambda: program.step.trace(state, frozen, inputs), mesh, batch, parts)


def measure_zoom(program: Program, batch: int, photo_hw: tuple[int, int]) -> Measured:
    """Trace and compile the zoom of a batch of photos of at most that height and width, all its steps.

    A model without PIZA's parts, such as one trained on captions, zooms by rule.

    Raises:
        PizaError: a batch that does not divide over the mesh.
    """
    mesh, config = program.mesh, program.config
    sharding.check_batch(mesh, batch)
    zoom_config = zoom_config_of(config.to_dict(), mode="piza" if config.model.history else "training_free")
    graph, *templates = program.split_model

    def run(trainable: Any, frozen: Any, photos: Any, photo_hw: Any, input_ids: Any, token_mask: Any) -> Any:
        whole = sharding.gather(trainable), sharding.gather(frozen)
        states = [unflatten_state(*pair) for pair in zip(templates, whole, strict=True)]
        model = nnx.merge(graph, *states, copy=True)
        return locate(model, photos, photo_hw, model.encode_text(input_ids, token_mask), zoom_config)

    def split(shape: tuple[int, ...], dtype: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((batch, *shape), dtype, sharding=sharding.batch_sharding(mesh))

    tokens = config.data.max_tokens
    inputs = (
        split((*photo_hw, 3), np.uint8),
        split((2,), np.int32),
        split((tokens,), np.int32),
        split((tokens,), np.bool_),
    )
    state, frozen = program.arguments()
    parts = {"trained": state.trainable, "frozen": frozen, "optimizer": (), "inputs": inputs}
    return _measure(lambda: jax.jit(run).trace(state.trainable, frozen, *inputs), mesh, batch, parts)


def shard_bytes(tree: Any) -> int:
    """Bytes that one device holds of a tree of ShapeDtypeStruct with shardings."""
    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * np.dtype(leaf.dtype).itemsize
        for leaf in jax.tree.leaves(tree)
    )


def _measure(trace: Traced, mesh: Mesh, batch: int, parts: Mapping[str, Any]) -> Measured:
    with jax.set_mesh(mesh):
        traced = trace()
        known: dict[str, Any] = {
            "batch": batch,
            "parts": {name: shard_bytes(tree) for name, tree in parts.items()},
            "flops": matmul_flops(traced.jaxpr),
            "unknown_loops": unknown_loops(traced.jaxpr),
        }
        try:
            compiled = traced.lower().compile()
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            return Measured(**known, fits=False, total=needed_bytes(str(error)))
        memory, cost = compiled.memory_analysis(), compiled.cost_analysis() or {}
        arguments = memory.argument_size_in_bytes
        total = arguments + memory.output_size_in_bytes - memory.alias_size_in_bytes + memory.temp_size_in_bytes
        chip = find_chip(mesh.devices.flat[0])
        return Measured(
            **known,
            fits=chip is None or total <= chip.usable_bytes,
            total=total,
            arguments=arguments,
            temporaries=memory.temp_size_in_bytes,
            traffic=cost.get("bytes accessed"),
            collectives=tuple(read_collectives(compiled.as_text(), mesh)),
        )
