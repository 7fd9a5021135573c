"""The device mesh and where arrays live on it.

Three axes: the batch is split over "data" and "fsdp", large parameters are stored in shards over "fsdp" and gathered
where they are used, and the heads and hidden channels of a layer are computed apart over "tensor". ``RULES`` is the one
place that says which dimension of which parameter is which.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

from piza_jax.errors import PizaError

AXES = ("data", "fsdp", "tensor")
BATCH = ("data", "fsdp")

# Logical axis -> mesh axis. "hidden" are channels that only live between two projections of one layer: of the heads of
# an attention, or of a feed-forward. Other dimensions have no logical axis and are split by size, over fsdp.
LOGICAL = {"hidden": "tensor"}

# (name, logical axes of its dimensions); the first match counts. A layer's first projections make the hidden channels
# and its last one takes them up. The fused projection of Swin's windows is not here: its thirds would be torn apart.
_FIRST = r"(query|key|value|image_query|text_query|image_value|text_value|sampling_offsets|attention_weights)"
_LAST = r"attention/(out|image_out|text_out)"
RULES: tuple[tuple[str, tuple[str | None, ...]], ...] = (
    (rf"attention/{_FIRST}/kernel$", (None, "hidden")),
    (rf"attention/{_FIRST}/bias$", ("hidden",)),
    (r"stages/.*/attention/out/kernel$", ()),
    (rf"{_LAST}/kernel$", ("hidden", None)),
    (r"adapter[12]/down/kernel$", (None, "hidden")),
    (r"adapter[12]/down/bias$", ("hidden",)),
    (r"adapter[12]/up/kernel$", ("hidden", None)),
    (r"/up/kernel$", (None, "hidden")),
    (r"/up/bias$", ("hidden",)),
    (r"/down/kernel$", ("hidden", None)),
    (r"ffn/layers/0/kernel$", (None, "hidden")),
    (r"ffn/layers/0/bias$", ("hidden",)),
    (r"ffn/layers/1/kernel$", ("hidden", None)),
)


def make_mesh(data: int = -1, fsdp: int = 1, tensor: int = 1, *, devices: list[Any] | None = None) -> Mesh:
    """Mesh with axes ("data", "fsdp", "tensor") of type Auto.

    Args:
        data: devices along which the batch alone is split; one of the three may be -1 and takes what the others leave.
        fsdp: devices along which the batch and the large parameters are split.
        tensor: devices that share the heads and hidden channels of one sample.
        devices: the devices to use, all of them by default; may be those of a topology that is not here.

    Raises:
        PizaError: the sizes do not multiply to the number of devices.
    """
    devices = jax.devices() if devices is None else devices
    sizes = {"data": data, "fsdp": fsdp, "tensor": tensor}
    said = " x ".join(f"mesh.{name}={size}" for name, size in sizes.items())
    known = [size for size in sizes.values() if size != -1]
    if len(known) < 2 or any(size < 1 for size in known):
        raise PizaError(f"{said}: sizes are at least 1, and only one of them may be -1")
    rest, remainder = divmod(len(devices), int(np.prod(known)))
    if remainder or (len(known) == 3 and rest != 1):
        raise PizaError(
            f"{said} does not fit the {len(devices)} devices here; "
            "choose sizes whose product is the number of devices, or -1 for one of them"
        )
    shape = tuple(rest if size == -1 else size for size in sizes.values())
    # Explicit axes break lax.map over a sharded batch and the vmapped matcher.
    types = (AxisType.Auto,) * len(AXES)
    try:
        return jax.make_mesh(shape, AXES, axis_types=types, devices=devices)
    except AssertionError:  # a topology ahead of time with two devices a chip, which jax's order of devices refuses
        return Mesh(np.array(devices).reshape(shape), AXES, axis_types=types)


def mesh_of(settings: Mapping[str, int], devices: list[Any] | None = None) -> Mesh:
    """The mesh of a configuration's settings data, fsdp and tensor; see make_mesh."""
    return make_mesh(settings["data"], settings["fsdp"], settings.get("tensor", 1), devices=devices)


def batch_devices(mesh: Mesh | AbstractMesh) -> int:
    """In how many parts a batch is split."""
    return int(np.prod([mesh.shape[name] for name in BATCH]))


def check_batch(mesh: Mesh, global_batch: int) -> None:
    """PizaError unless that many samples divide evenly over the mesh, and each part of them is fed by one process."""
    parts = batch_devices(mesh)
    if global_batch < 1 or global_batch % parts:
        raise PizaError(
            f"train.batch_size={global_batch} does not divide over the mesh of {mesh.size} devices "
            f"({describe(mesh)}), which splits it in {parts}; use a multiple of {parts}"
        )
    owners = np.vectorize(lambda device: device.process_index)(mesh.devices)
    if (owners != owners[..., :1]).any():
        raise PizaError(
            f"mesh.tensor={mesh.shape['tensor']} reaches over several processes, and one process feeds all devices "
            "that share a sample; lower it until it divides the devices of a process"
        )


def parameter_spec(name: str, shape: tuple[int, ...], sizes: Mapping[str, int], min_size: int) -> PartitionSpec:
    """Where a parameter, or a moment of it, is split.

    Args:
        name: of the parameter; RULES say which of its dimensions are split over the tensor axis.
        shape: its shape; a dimension that an axis does not divide stays whole.
        sizes: {"fsdp": devices, "tensor": devices}.
        min_size: arrays of fewer elements are not split over fsdp; of larger ones the largest dimension that fsdp
            divides and that is not split already.
    """
    places = _tensor_places(name, shape, sizes.get("tensor", 1))
    fsdp = sizes.get("fsdp", 1)
    fitting = [axis for axis, size in enumerate(shape) if places[axis] is None and size % fsdp == 0 and size >= fsdp]
    if fsdp > 1 and fitting and int(np.prod(shape)) >= min_size:
        places[max(fitting, key=lambda axis: (shape[axis], axis))] = "fsdp"
    return _spec(places)


def state_shardings(mesh: Mesh, tree: Any, min_size: int) -> Any:
    """NamedSharding for each array (or ShapeDtypeStruct) of a tree, by parameter_spec.

    An array's name is its last key; optimiser moments have their parameter's and follow it.
    """
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: NamedSharding(mesh, parameter_spec(_last_key(path), leaf.shape, mesh.shape, min_size)), tree
    )


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Sharding of a batch: leading axis over the data and fsdp axes."""
    return NamedSharding(mesh, PartitionSpec(BATCH))


def replicated(mesh: Mesh) -> NamedSharding:
    """Sharding of a value that every device holds whole."""
    return NamedSharding(mesh, PartitionSpec())


def put_batch(mesh: Mesh, batch: Mapping[str, np.ndarray]) -> dict[str, jax.Array]:
    """Host batch of this process [local B, ...] -> global arrays [B, ...] split over the mesh."""
    sharding = batch_sharding(mesh)
    return {name: jax.make_array_from_process_local_data(sharding, np.asarray(value)) for name, value in batch.items()}


class Spread:
    """The devices of a mesh sharing the batches of a Grounder: a ``piza.placement.Placement``.

    Each device along the data and fsdp axes has its own rows and all weights, and runs the program of one device on
    them: nothing is sent between devices but sharded weights, and one whose rows are finished waits for no other's.
    Devices along the tensor axis do the same work.
    """

    def __init__(self, mesh: Mesh):
        """Take a mesh, which may reach over several processes that all hold the same batches."""
        self.mesh, self.parts = mesh, batch_devices(mesh)

    def model(self, state: Any) -> Any:
        """Weights on the mesh: those of a run stay in its shards, others are copied to every device."""
        devices, whole = set(self.mesh.devices.flat), replicated(self.mesh)

        def place(leaf: Any) -> jax.Array:
            there = isinstance(leaf, jax.Array) and leaf.sharding.device_set == devices
            return leaf if there else jax.device_put(leaf, whole)

        return jax.tree.map(place, state)

    def batch(self, tree: Any) -> Any:
        """Rows of NumPy arrays [B, ...], each on its own devices; parts divides B."""
        rows = batch_sharding(self.mesh)
        return jax.tree.map(lambda leaf: jax.make_array_from_callback(leaf.shape, rows, lambda at: leaf[at]), tree)

    def compile(self, run: Callable[..., Any]) -> Callable[..., Any]:
        """A function of weights and arrays [B, ...] to arrays [B, ...] as one of each device's rows."""
        rows = PartitionSpec(BATCH)

        def local(state: Any, arrays: tuple[Any, ...]) -> Any:
            return run(state, *arrays)

        spread = jax.shard_map(local, mesh=self.mesh, in_specs=(PartitionSpec(), rows), out_specs=rows, check_vma=False)
        return jax.jit(lambda state, *arrays: spread(state, arrays))

    def fetch(self, tree: Any) -> Any:
        """Whole NumPy arrays, in every process."""
        if not batch_sharding(self.mesh).is_fully_addressable:
            tree = jax.jit(lambda arrays: arrays, out_shardings=replicated(self.mesh))(tree)
        return jax.device_get(tree)


def abstract(tree: Any, shardings: Any) -> Any:
    """Tree of ShapeDtypeStruct that carry their shardings: the target of a restore."""
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), tree, shardings
    )


def gather(parameters: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
    """Inside jit: ask for copies of parameters that are whole but for the tensor axis.

    Left to itself the partitioner carries a parameter's fsdp split over to activations, whose batch is split already,
    and moves them back and forth. The gradient of this is the sum over devices, scattered to the shards.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        return dict(parameters)
    tensor = mesh.shape.get("tensor", 1)
    return {
        name: jax.lax.with_sharding_constraint(leaf, _spec(_tensor_places(name, leaf.shape, tensor)))
        for name, leaf in parameters.items()
    }


def initialise(function: Callable[[], Any], shardings: Any) -> Any:
    """Run an initialiser under jit, so that each device only ever holds its own shard of the result."""
    return jax.jit(function, out_shardings=shardings)()


def describe(mesh: Mesh) -> str:
    """Axes and sizes in words."""
    return " x ".join(f"{name} {size}" for name, size in mesh.shape.items())


def _tensor_places(name: str, shape: tuple[int, ...], tensor: int) -> list[str | None]:
    places: list[str | None] = [None] * len(shape)
    if tensor > 1:
        logical = next((axes for rule, axes in RULES if re.search(rule, name)), ())
        if len(logical) == len(shape):
            fits = [axis is not None and size % tensor == 0 for axis, size in zip(logical, shape, strict=True)]
            places = [LOGICAL[str(axis)] if fit else None for axis, fit in zip(logical, fits, strict=True)]
    return places


def _spec(places: list[str | None]) -> PartitionSpec:
    while places and places[-1] is None:
        places = places[:-1]
    return PartitionSpec(*places)


def _last_key(path: tuple[Any, ...]) -> str:
    return next((str(part.key) for part in reversed(path) if isinstance(part, jax.tree_util.DictKey)), "")
