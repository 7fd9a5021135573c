"""The device mesh and where arrays live on it: batches over all devices, large parameters over the fsdp axis."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from piza_jax.errors import PizaError

AXES = ("data", "fsdp")


def make_mesh(data: int = -1, fsdp: int = 1, devices: list[jax.Device] | None = None) -> Mesh:
    """Mesh with axes ("data", "fsdp") of type Auto.

    Args:
        data: devices along which the batch alone is split; -1 takes what fsdp leaves.
        fsdp: devices along which the batch and the large parameters are split; -1 takes what data leaves.
        devices: the devices to use, all of them by default.

    Raises:
        PizaError: the sizes do not multiply to the number of devices.
    """
    devices = jax.devices() if devices is None else devices
    sizes = [data, fsdp]
    known = [size for size in sizes if size != -1]
    if len(known) == 0 or any(size < 1 for size in known):
        raise PizaError(f"mesh.data={data} and mesh.fsdp={fsdp}: sizes are at least 1, and only one of them may be -1")
    rest, remainder = divmod(len(devices), int(np.prod(known)))
    if remainder or (len(known) == 2 and rest != 1):
        raise PizaError(
            f"mesh.data={data} x mesh.fsdp={fsdp} does not fit the {len(devices)} devices here; "
            "choose sizes whose product is the number of devices, or -1 for one of them"
        )
    shape = tuple(rest if size == -1 else size for size in sizes)
    # Explicit axes break lax.map over a sharded batch and the vmapped matcher.
    return jax.make_mesh(shape, AXES, axis_types=(AxisType.Auto, AxisType.Auto), devices=devices)


def check_batch(mesh: Mesh, global_batch: int) -> None:
    """PizaError unless a global batch of that many samples divides evenly over the mesh and the processes."""
    if global_batch < 1 or global_batch % mesh.size:
        raise PizaError(
            f"data.batch_size={global_batch} does not divide over the mesh of {mesh.size} devices "
            f"({_describe(mesh)}); use a multiple of {mesh.size}"
        )


def parameter_spec(shape: tuple[int, ...], fsdp: int, min_size: int) -> PartitionSpec:
    """Shape rule: an array of at least min_size elements is split on its largest dimension that fsdp divides."""
    fitting = [axis for axis, size in enumerate(shape) if size % fsdp == 0 and size >= fsdp]
    if fsdp == 1 or not fitting or int(np.prod(shape)) < min_size:
        return PartitionSpec()
    chosen = max(fitting, key=lambda axis: (shape[axis], axis))
    return PartitionSpec(*("fsdp" if axis == chosen else None for axis in range(chosen + 1)))


def state_shardings(mesh: Mesh, tree: Any, min_size: int) -> Any:
    """NamedSharding for each array (or ShapeDtypeStruct) of a tree, by parameter_spec; optimiser moments follow too."""
    return jax.tree.map(
        lambda leaf: NamedSharding(mesh, parameter_spec(leaf.shape, mesh.shape["fsdp"], min_size)), tree
    )


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Sharding of a batch: leading axis over every device."""
    return NamedSharding(mesh, PartitionSpec(AXES))


def replicated(mesh: Mesh) -> NamedSharding:
    """Sharding of a value that every device holds whole."""
    return NamedSharding(mesh, PartitionSpec())


def put_batch(mesh: Mesh, batch: Mapping[str, np.ndarray]) -> dict[str, jax.Array]:
    """Host batch of this process [local B, ...] -> global arrays [B, ...] split over the mesh."""
    sharding = batch_sharding(mesh)
    return {name: jax.make_array_from_process_local_data(sharding, np.asarray(value)) for name, value in batch.items()}


def abstract(tree: Any, shardings: Any) -> Any:
    """Tree of ShapeDtypeStruct that carry their shardings: the target of a restore."""
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), tree, shardings
    )


def gather(tree: Any) -> Any:
    """Inside jit: ask for whole copies of sharded parameters.

    Left to itself the partitioner carries a parameter's split over to activations, whose batch is split already, and
    moves them back and forth. The gradient of this is the sum over devices, scattered to the shards.
    """
    if jax.sharding.get_abstract_mesh().empty:
        return tree
    return jax.tree.map(lambda leaf: jax.lax.with_sharding_constraint(leaf, PartitionSpec()), tree)


def initialise(function: Callable[[], Any], shardings: Any) -> Any:
    """Run an initialiser under jit, so that each device only ever holds its own shard of the result."""
    return jax.jit(function, out_shardings=shardings)()


def _describe(mesh: Mesh) -> str:
    return ", ".join(f"{name} {size}" for name, size in mesh.shape.items())
