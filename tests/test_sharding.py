"""The mesh, the shape rule, and one step on eight devices against one."""

import re

import jax
import numpy as np
import pytest
from flax import nnx
from jax.sharding import PartitionSpec

from piza_jax.errors import PizaError
from piza_jax.models.params import flatten_state
from piza_jax.training import optim, sharding
from piza_jax.training.objective import compute_losses
from piza_jax.training.step import TrainState, make_step
from tests import figures, tiny_detector, tiny_task


@pytest.mark.parametrize(
    ("sizes", "shape"),
    [
        ((-1, 1), (8, 1, 1)),
        ((2, -1), (2, 4, 1)),
        ((-1, 4), (2, 4, 1)),
        ((1, 8), (1, 8, 1)),
        ((2, 2, -1), (2, 2, 2)),
        ((-1, 1, 4), (2, 1, 4)),
    ],
)
def test_mesh_sizes(sizes, shape):
    mesh = sharding.make_mesh(*sizes)
    assert dict(mesh.shape) == dict(zip(("data", "fsdp", "tensor"), shape, strict=True))


@pytest.mark.parametrize("sizes", [(3, -1), (2, 2), (-1, -1), (0, 8), (16, 1), (-1, 2, 3), (1, -1, -1)])
def test_mesh_that_does_not_fit(sizes):
    with pytest.raises(PizaError, match=f"mesh.data={sizes[0]} x mesh.fsdp={sizes[1]} x mesh.tensor="):
        sharding.make_mesh(*sizes)


def test_batch_that_does_not_divide():
    with pytest.raises(PizaError, match=r"batch_size=12 does not divide over the mesh of 8 .*multiple of 8"):
        sharding.check_batch(sharding.make_mesh(), 12)
    sharding.check_batch(sharding.make_mesh(2, 2, 2), 12)  # the two devices of a tensor axis share their samples


@pytest.mark.parametrize(
    ("shape", "fsdp", "spec"),
    [
        ((768, 3072), 4, PartitionSpec(None, "fsdp")),
        ((30522, 768), 4, PartitionSpec(None, "fsdp")),  # 4 does not divide the larger dimension
        ((30524, 768), 4, PartitionSpec("fsdp")),
        ((512, 512), 4, PartitionSpec(None, "fsdp")),
        ((3, 3, 5), 4, PartitionSpec()),
        ((64,), 4, PartitionSpec()),  # below the threshold
        ((768, 3072), 1, PartitionSpec()),
        ((), 4, PartitionSpec()),
    ],
)
def test_shape_rule(shape, fsdp, spec):
    assert sharding.parameter_spec("layer/kernel", shape, {"fsdp": fsdp}, min_size=1024) == spec


@pytest.mark.parametrize(
    ("name", "shape", "spec"),
    [
        ("bert/layers/0/attention/query/kernel", (768, 768), PartitionSpec("fsdp", "tensor")),
        ("bert/layers/0/attention/query/bias", (768,), PartitionSpec("tensor")),
        ("bert/layers/0/attention/out/kernel", (768, 768), PartitionSpec("tensor", "fsdp")),
        ("bert/layers/0/attention/out/bias", (768,), PartitionSpec()),
        ("decoder/layers/0/ffn/layers/0/kernel", (256, 2048), PartitionSpec("fsdp", "tensor")),
        ("decoder/layers/0/ffn/layers/1/kernel", (2048, 256), PartitionSpec("tensor", "fsdp")),
        ("enhancer/layers/0/image/adapter1/down/kernel", (256, 64), PartitionSpec("fsdp", "tensor")),
        ("backbone/stages/0/blocks/0/up/kernel", (96, 384), PartitionSpec("fsdp", "tensor")),
        ("backbone/stages/0/blocks/0/attention/out/kernel", (96, 96), PartitionSpec(None, "fsdp")),
        ("bert/layers/0/attention/query/kernel", (64, 33), PartitionSpec("fsdp")),  # 2 does not divide 33
    ],
)
def test_tensor_rules(name, shape, spec):
    assert sharding.parameter_spec(name, shape, {"fsdp": 4, "tensor": 2}, min_size=1024) == spec


def test_moments_lie_where_their_parameter_lies():
    mesh = sharding.make_mesh(2, 2, 2)
    parameters = {"up/kernel": jax.ShapeDtypeStruct((64, 256), jax.numpy.float32)}
    parameters["bert/layers/0/up/kernel"] = parameters["up/kernel"]
    optimizer = optim.make_optimizer(optim.OptimizerConfig(), lambda count: 1e-3)
    placed = sharding.state_shardings(mesh, jax.eval_shape(optimizer.init, parameters), min_size=1024)
    moments = [leaf.spec for leaf in jax.tree.leaves(placed) if leaf.spec != PartitionSpec()]
    assert moments == 2 * [PartitionSpec("fsdp", "tensor"), PartitionSpec(None, "fsdp")]


def run_one_step(devices, *sizes):
    """Loss, parameters before and after one step of the tiny task, with the shardings of the parameters."""
    config = tiny_task.make_config()
    task = tiny_task.make_task(config, width=32)
    mesh = sharding.make_mesh(*sizes, devices=devices)
    settings = optim.OptimizerConfig(learning_rate=1e-2)
    optimizer = optim.make_optimizer(settings, optim.make_schedule(settings, 5, 20))
    split = task.split(nnx.eval_shape(task.make_model))

    def initialise():
        _, trainable, frozen = task.split(task.make_model())
        trainable = flatten_state(trainable)
        return TrainState(jax.numpy.int32(0), trainable, optimizer.init(trainable)), flatten_state(frozen)

    with jax.set_mesh(mesh):
        shardings = sharding.state_shardings(mesh, jax.eval_shape(initialise), min_size=64)
        state, frozen = sharding.initialise(initialise, shardings)
        before = jax.device_get(state.trainable)
        placed = {name: leaf.sharding.spec for name, leaf in state.trainable.items()}
        batch = sharding.put_batch(mesh, next(iter(task.dataset)))
        step = jax.jit(make_step(split, task.loss, optimizer), donate_argnums=0)
        state, scalars = step(state, frozen, batch)
        return jax.device_get(scalars), before, jax.device_get(state.trainable), placed


@pytest.mark.parametrize(("data", "fsdp"), [(8, 1), (2, 4)])
def test_step_on_eight_devices_equals_one(data, fsdp):
    scalars_one, before_one, after_one, _ = run_one_step(jax.devices()[:1], 1, 1)
    scalars, before, after, placed = run_one_step(jax.devices(), data, fsdp)
    if fsdp > 1:
        assert placed["layers/0/kernel"] == PartitionSpec(None, "fsdp")
    for name in scalars_one:
        np.testing.assert_allclose(scalars[name], scalars_one[name], rtol=1e-5)
    for name in before_one:
        np.testing.assert_array_equal(before[name], before_one[name])  # the same draw however it is sharded
        np.testing.assert_allclose(after[name] - before[name], after_one[name] - before_one[name], rtol=0, atol=1e-5)
        assert np.abs(after[name] - before[name]).max() > 1e-3


def test_large_state_is_never_whole_on_a_device():
    mesh = sharding.make_mesh(2, 4)
    target = {"kernel": jax.ShapeDtypeStruct((256, 512), jax.numpy.float32)}
    shardings = sharding.state_shardings(mesh, target, min_size=1024)
    made = sharding.initialise(lambda: {"kernel": jax.random.normal(jax.random.key(0), (256, 512))}, shardings)
    assert {shard.data.shape for shard in made["kernel"].addressable_shards} == {(256, 128)}


def run_detector_step(devices, sizes, parameters):
    """Scalars, parameters after one step of the real detector and losses, and the compiled program's text."""
    mesh = sharding.make_mesh(*sizes, devices=devices)
    settings = optim.OptimizerConfig()
    optimizer = optim.make_optimizer(settings, optim.make_schedule(settings, 10, 20))
    split = tiny_detector.split(nnx.eval_shape(tiny_detector.make_model))
    with jax.set_mesh(mesh):
        state = TrainState(np.int32(0), parameters, optimizer.init(parameters))
        shardings = sharding.state_shardings(mesh, state, min_size=1024)
        state = jax.device_put(state, shardings)
        batch = sharding.put_batch(mesh, tiny_detector.batch())
        step = jax.jit(
            make_step(split, compute_losses, optimizer),
            donate_argnums=0,
            out_shardings=(shardings, sharding.replicated(mesh)),
        )
        # It runs once: optimising it would take longer than all the rest.
        options = {"xla_backend_optimization_level": 0}
        compiled = step.lower(state, {}, batch).compile(compiler_options=options)
        split_count = sum("fsdp" in str(leaf.sharding.spec) for leaf in state.trainable.values())
        state, scalars = compiled(state, {}, batch)
        return jax.device_get(scalars), jax.device_get(state.trainable), compiled.as_text(), split_count


@pytest.fixture(scope="module")
def detector_on_one_device():
    parameters = tiny_detector.parameters()
    return parameters, run_detector_step(jax.devices()[:1], (1, 1), parameters)


@pytest.mark.slow
@pytest.mark.parametrize("sizes", [(8, 1, 1), (2, 4, 1), (2, 2, 2)])
def test_detector_step_on_eight_devices_equals_one(detector_on_one_device, sizes):
    before, (scalars_one, after_one, _, _) = detector_on_one_device
    scalars, after, text, split_count = run_detector_step(jax.devices(), sizes, before)
    assert len(scalars_one) > 8
    for name in scalars_one:
        figures.note("sharding: losses, relative", abs(float(scalars[name]) / float(scalars_one[name]) - 1))
        np.testing.assert_allclose(scalars[name], scalars_one[name], rtol=1e-5, err_msg=name)
    moved = 0
    for name in before:
        figures.note("sharding: updates, absolute", np.abs(after[name] - after_one[name]).max())
        np.testing.assert_allclose(
            after[name] - before[name], after_one[name] - before[name], rtol=0, atol=1e-5, err_msg=name
        )
        moved += bool(np.abs(after[name] - before[name]).max() > 1e-5)
    assert moved > 0.9 * len(before)
    if sizes[1] > 1:
        assert split_count > 50
    # Parameters are gathered and gradients summed; activations change hands along the tensor axis only.
    if sizes[2] == 1:
        assert not re.search(r"= \S+ (all-to-all|collective-permute)\(", text)
    else:
        # The feed-forwards of the decoder (128 -> 256 -> 128) and its heads, two samples a device, are halved.
        assert re.search(r"f32\[\d*,?\d+,128\]", text)
