"""What a plan counts: matrix FLOPs of loops, collectives by axis, times; and the command on the devices here."""

import json
import os
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec
from ml_collections import ConfigDict

from piza_jax.cli import main
from piza_jax.data.captions import caption_fields, random_caption
from piza_jax.data.samples import random_sample, sample_fields
from piza_jax.errors import PizaError
from piza_jax.models.config import DetectorConfig
from piza_jax.piza.plain import plain_config
from piza_jax.plan import apart
from piza_jax.plan.chips import find_chip, open_topology
from piza_jax.plan.collectives import read_collectives
from piza_jax.plan.flops import matmul_flops, unknown_loops
from piza_jax.plan.plan import make_plan
from piza_jax.plan.programs import Measured, shard_bytes
from piza_jax.plan.roofline import count_cells, deformable_units, estimate
from piza_jax.plan.search import largest_batch
from piza_jax.plan.text import text
from piza_jax.training import sharding, task
from piza_jax.training.throughput import compile_step, needed_bytes
from tests import tiny_detector
from tests.test_task import load, small

SQUARE = jnp.ones((8, 8))
ONE = 2 * 8**3  # FLOPs of a product of two such matrices


def flops(function, *arguments):
    return matmul_flops(jax.make_jaxpr(function)(*arguments))


def repeat(x, times, body=jnp.matmul):
    return jax.lax.scan(lambda carry, _: (body(carry, SQUARE), None), x, None, length=times)[0]


@pytest.mark.parametrize(
    ("function", "count"),
    [
        (lambda x: x @ x + x, 1),
        (lambda x: repeat(x, 5), 5),
        (lambda x: repeat(x, 3, lambda a, b: repeat(a, 4) @ b), 15),
        (lambda x: jax.lax.map(lambda row: row @ SQUARE, jnp.stack([x] * 6)), 6),
        (jax.jit(lambda x: jax.checkpoint(lambda y: y @ SQUARE)(x)), 1),
        (jax.grad(lambda x: jnp.sum(jnp.sin(x @ SQUARE))), 2),  # forward, and the gradient of x
        (jax.grad(lambda x: jnp.sum(jax.checkpoint(lambda y: jnp.sin(jnp.sin(y @ SQUARE) @ SQUARE))(x))), 6),
        (lambda x: jax.lax.cond(x[0, 0] > 0, lambda y: y @ y @ y, lambda y: y @ y, x), 2),
        (lambda x: jnp.einsum("bij,bjk->bik", jnp.stack([x] * 3), jnp.stack([x] * 3)), 3),
    ],
)
def test_flops_of_loops_and_gradients(function, count):
    assert flops(function, SQUARE) == count * ONE


def test_flops_of_a_convolution_equal_the_compilers():
    image, kernel = jnp.ones((2, 16, 16, 6)), jnp.ones((4, 4, 3, 10))
    run = partial(
        jax.lax.conv_general_dilated,
        window_strides=(4, 4),
        padding="VALID",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=2,
    )
    assert flops(run, image, kernel) == 2 * (2 * 4 * 4 * 10) * (4 * 4 * 3)


def test_flops_of_all_devices_and_of_unknown_loops():
    mesh = sharding.make_mesh()
    spec = PartitionSpec("data")

    def spread(x):
        return jax.shard_map(lambda part: part @ SQUARE, mesh=mesh, in_specs=spec, out_specs=spec)(x)

    assert flops(spread, jnp.ones((64, 8))) == 8 * ONE
    endless = jax.make_jaxpr(lambda x: jax.lax.while_loop(lambda y: y[0, 0] < 9, lambda y: y @ SQUARE, x))(SQUARE)
    assert (matmul_flops(endless), unknown_loops(endless)) == (ONE, 1)
    assert unknown_loops(jax.make_jaxpr(lambda x: repeat(x, 4))(SQUARE)) == 0


def compiled_text(mesh, function, *shapes_and_specs):
    arguments = [
        jax.ShapeDtypeStruct(shape, np.float32, sharding=NamedSharding(mesh, PartitionSpec(*spec)))
        for shape, spec in shapes_and_specs
    ]
    with jax.set_mesh(mesh):
        return jax.jit(function).lower(*arguments).compile().as_text()


def test_collectives_by_kind_axis_and_bytes():
    mesh = sharding.make_mesh(2, 2, 2)

    def summed(x, w):
        return jax.lax.with_sharding_constraint(x.T @ w, PartitionSpec())

    text = compiled_text(mesh, summed, ((64, 16), (("data", "fsdp"),)), ((64, 24), (("data", "fsdp"),)))
    (found,) = read_collectives(text, mesh)
    assert (found.kind, found.axes, found.devices, found.bytes) == ("all-reduce", ("data", "fsdp"), 4, 4 * 16 * 24)
    assert found.sent_bytes == 2 * 3 / 4 * found.bytes

    def gathered(w):
        return jax.lax.with_sharding_constraint(w, PartitionSpec()) * 2

    (found,) = read_collectives(compiled_text(mesh, gathered, ((32, 16), (None, "tensor"))), mesh)
    assert (found.kind, found.axes, found.devices, found.bytes) == ("all-gather", ("tensor",), 2, 4 * 32 * 16)
    assert found.sent_bytes == found.bytes / 2


def test_collectives_in_a_loop_are_counted_as_often_as_it_runs():
    mesh = sharding.make_mesh(1, 8)

    def loop(x, w):
        def body(carry, _):
            product = carry @ w
            return jax.lax.with_sharding_constraint(jnp.sin(product), PartitionSpec(None, "fsdp")), None

        return jax.lax.scan(body, x, None, length=7)[0]

    noted = compiled_text(mesh, loop, ((16, 64), (None, "fsdp")), ((64, 64), ("fsdp",)))
    assert "known_trip_count" in noted
    # The compiler of TPUs takes no note; the loop's condition tells too.
    for program in (noted, noted.replace("known_trip_count", "unknown")):
        inside = [collective for collective in read_collectives(program, mesh) if collective.times == 7]
        assert inside
        assert all(collective.axes == ("fsdp",) and collective.known for collective in inside)


def test_a_loop_whose_length_is_data_counts_once_and_says_so():
    program = """
%condition (p: (s32[], s32[], f32[4])) -> pred[] {
  %p = (s32[], s32[], f32[4]{0}) parameter(0)
  %i = s32[] get-tuple-element(%p), index=0
  %n = s32[] get-tuple-element(%p), index=1
  ROOT %lt = pred[] compare(%i, %n), direction=LT
}

%body (q: (s32[], s32[], f32[4])) -> (s32[], s32[], f32[4]) {
  %a = f32[4]{0} all-reduce(%x), replica_groups={{0,1,2,3,4,5,6,7}}, to_apply=%add
}

ENTRY %main (p: f32[4]) -> f32[4] {
  %w = (s32[], s32[], f32[4]{0}) while(%t), condition=%condition, body=%body
}
"""
    mesh = sharding.make_mesh(8)
    (once,) = read_collectives(program, mesh)
    assert (once.times, once.known) == (1, False)
    counted = program.replace(
        "%n = s32[] get-tuple-element(%p), index=1", "%n = s32[]{:T(128)} constant(12), metadata={}"
    )
    (often,) = read_collectives(counted, mesh)
    assert (often.times, often.known) == (12, True)


def test_groups_listed_one_by_one():
    mesh = sharding.make_mesh(4, 2)
    text = """
ENTRY %main (p: f32[4]) -> f32[4] {
  %a = f32[4]{0} all-reduce(%p), replica_groups={{0,2,4,6},{1,3,5,7}}, to_apply=%add
  %b = (f32[4]{0}, f32[32]{0}) all-gather-start(%p), replica_groups=[4,2]<=[8], dimensions={0}
  %c = bf16[4]{0} collective-permute(%p), source_target_pairs={{0,1},{1,0}}
  %e = f32[4]{0} all-reduce(%p), replica_groups=mesh['x'=8] {'x':(4)2}, to_apply=%add
  %d = f32[4]{0} all-reduce(%p), replica_groups={{0},{1},{2},{3},{4},{5},{6},{7}}, to_apply=%add
}
"""
    found = read_collectives(text, mesh)
    assert [(one.kind, one.axes, one.bytes) for one in found] == [
        ("all-reduce", ("data",), 16),
        ("all-gather", ("fsdp",), 128),
        ("collective-permute", ("fsdp",), 8),
        ("all-reduce", ("fsdp",), 16),
    ]


def test_fields_are_those_of_a_sample(tmp_path):
    config = small()
    source = task.open_source(config)
    tokenizer = task.open_tokenizer(config, source, tmp_path)
    sample = random_sample(source[0], tokenizer, task.sample_config(config), np.random.default_rng(0))
    fields = {name: (np.shape(value), np.asarray(value).dtype) for name, value in sample.items()}
    expected = sample_fields(task.sample_config(config))
    assert fields == {name: (shape, np.dtype(dtype)) for name, (shape, dtype) in expected.items()}


def captions(*overrides):
    """The first training of piza-mini, on captions, with the smallest detector."""
    changes = ("data.canvas_hw=(64,64)", "data.max_tokens=40", "data.num_photos=16", "train.batch_size=8")
    config = load("mini.py:peft=none", *changes, *overrides)
    with config.unlocked():
        config.model = ConfigDict(plain_config(tiny_detector.model_config()).to_dict())
        config.model.detector.bert.vocab_size = 2048
    return config


def test_fields_are_those_of_a_caption(tmp_path):
    config = captions("data.num_photos=1")
    source = task.open_source(config)
    tokenizer = task.open_tokenizer(config, source, tmp_path)
    sample = random_caption(source[0], tokenizer, task.caption_config(config), np.random.default_rng(0))
    fields = {name: (np.shape(value), np.asarray(value).dtype) for name, value in sample.items()}
    expected = caption_fields(task.caption_config(config))
    assert fields == {name: (shape, np.dtype(dtype)) for name, (shape, dtype) in expected.items()}


@pytest.mark.slow
def test_training_on_captions_is_planned_like_that_of_zooms(monkeypatch):
    # Optimising what never runs would take longer than all the rest.
    compile_ = jax.stages.Lowered.compile
    quick = {"xla_backend_optimization_level": 0}
    monkeypatch.setattr(jax.stages.Lowered, "compile", lambda lowered: compile_(lowered, quick))
    config = captions("train.stage=towers")
    found = make_plan(config, photo_hw=(128, 128))
    fields = caption_fields(task.caption_config(config)).values()
    assert found.step.fits
    assert found.step.parts["inputs"] == sum(np.prod(s, dtype=int) * np.dtype(d).itemsize for s, d in fields)
    assert found.counts == {"trained": found.step.parts["trained"] // 4, "frozen": 0}
    assert ("all-reduce", ("data",)) in {(one.kind, one.axes) for one in found.step.collectives}
    assert found.zoom is not None
    assert found.zoom.flops > 0
    assert found.length == "2,500 steps"
    printed = text(found)
    for part in ("training step, batch 8 (1 a device)", "boxes_of_a_caption 16, stage towers", "zoom of 8 photos"):
        assert part in printed

    # The step of the whole detector is traced, and refused as on a device that is too small.
    def refuse(lowered):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Ran out of memory. Used 32.00G of 15.75G hbm.")

    monkeypatch.setattr(jax.stages.Lowered, "compile", refuse)
    whole = make_plan(captions(), photo_hw=None)
    assert (whole.step.fits, whole.step.total) == (False, 32 * 2**30)
    assert whole.step.flops > 2 * found.zoom.flops  # forward and backward
    assert whole.step.flops > found.step.flops
    assert "DOES NOT FIT" in text(whole)


def test_roofline_knows_what_captions_and_towers_need():
    class Device:
        device_kind = "TPU v5 lite"

    chip, detector = find_chip(Device), DetectorConfig.preset("swin_t", dtype="bfloat16")
    # 100 pairs of denoising queries for 16 targets are 6 groups of 16 positives and 16 negatives.
    each = deformable_units(detector, (1024, 1024), training=True, targets=16)
    assert each == pytest.approx(6 * (21_760 + 900 + 192) / 43_520)
    work = Measured(batch=8, parts={}, flops=8 * 197e12, unknown_loops=0, fits=True, total=1)
    towers = estimate(work, chip, 8, detector, (1024, 1024), training=True, views=0)
    assert (towers.low, towers.high, towers.limiter) == (1.0, 1.0, "compute")
    assert estimate(work, chip, 8, detector, (1024, 1024), training=True).low > 1.1


def test_roofline_names_its_limiter():
    class Device:
        device_kind = "TPU v5 lite"

    chip, detector = find_chip(Device), DetectorConfig.preset("swin_t", dtype="bfloat16", remat="layers")
    assert count_cells(detector, (1024, 1024)) == 21_760
    assert deformable_units(detector, (1024, 1024), training=False) == pytest.approx(6 * (21_760 + 900) / 43_520)
    work = Measured(batch=8, parts={}, flops=4 * 197e12, unknown_loops=0, fits=True, total=1, traffic=819e9 / 2)
    times = estimate(work, chip, 4, detector, (1024, 1024), training=True)
    assert (times.compute, times.memory, times.links) == (1.0, 0.5, 0.0)
    # Two samples a chip, recomputed: forward twice and backward once, 13 + 44 to 21 + 59 ms for each of six layers.
    units = 2 * 6 * (21_760 + 1100) / 43_520
    assert times.deformable == pytest.approx((units * 0.057, units * 0.080))
    assert times.low == pytest.approx(1.0 + units * 0.057)
    assert times.high == pytest.approx(1.5 + units * 0.080)
    assert times.limiter == "compute"


def test_bytes_of_one_device():
    mesh = sharding.make_mesh(2, 4)
    split = jax.ShapeDtypeStruct((64, 8), np.float32, sharding=NamedSharding(mesh, PartitionSpec("fsdp")))
    whole = jax.ShapeDtypeStruct((10,), jnp.bfloat16, sharding=sharding.replicated(mesh))
    assert shard_bytes({"a": split, "b": [whole]}) == 4 * 16 * 8 + 20


def test_step_that_cannot_fit_is_refused_with_both_numbers():
    assert needed_bytes("Ran out of memory in memory space hbm. Used 32.89G of 15.75G hbm.") == int(32.89 * 2**30)
    assert needed_bytes("HLO temporaries (1.50M) exceeds available HBM (15.75G)") == int(1.5 * 2**20)
    lowered = jax.jit(lambda x: x @ x).lower(jnp.ones((256, 256)))
    with pytest.raises(
        PizaError, match=r"needs 5\d\d kB of memory .*, 1 kB are there on each device; lower train.batch"
    ):
        compile_step(lowered, 1, limit=1000)
    assert compile_step(lowered, 1, limit=10**9)[1].peak_bytes >= 2 * 4 * 256**2


@pytest.mark.slow
def test_command_plans_for_the_devices_here(tmp_path, capsys):
    output = tmp_path / "plan.json"
    words = ["--config=configs/scenes.py:smoke", "--config.data.canvas_hw=(64,64)", "--mesh=-1,2,1"]
    arguments = ["plan", *words, "--batch_per_device=1", f"--output={output}", "--photo=512x512"]
    assert (
        main([*arguments, "--config.model.detector.encoder_layers=1", "--config.model.detector.decoder_layers=1"]) == 0
    )
    printed = capsys.readouterr().out
    assert "8 x cpu, mesh data 4 x fsdp 2 x tensor 1" in printed
    assert "its kind is not in the table" in printed
    found = json.loads(output.read_text())
    assert found["step"]["batch"] == 8
    assert found["step"]["total"] > sum(found["step"]["parts"].values()) > 4 * found["counts"]["trained"]
    # Five looks forward cost more than the forward and backward pass of one.
    assert found["zoom"]["flops"] > found["step"]["flops"] > 0
    kinds = {(one["kind"], tuple(one["axes"])) for one in found["step"]["collectives"]}
    assert ("all-reduce", ("data", "fsdp")) in kinds


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--batch=12"], "batch_size=12 does not divide over the mesh of 8 devices"),
        (["--mesh=3,-1,1"], "mesh.data=3 x mesh.fsdp=-1 x mesh.tensor=1 does not fit the 8 devices"),
        (["--mesh=4,2"], "--mesh=4,2 is not of the form data,fsdp,tensor"),
        (["--photo=big"], "--photo=big is not of the form HEIGHTxWIDTH"),
        (["--batch=8", "--batch_per_device=1"], "give either"),
        (["--fast"], "unknown argument '--fast'"),
    ],
)
def test_command_refuses(words, message, capsys):
    assert main(["plan", "--config=configs/scenes.py:smoke", *words]) == 2
    assert message in capsys.readouterr().err


def test_topology_without_a_compiler_or_name():
    with pytest.raises(PizaError, match=r"cannot compile for --topology=v5e:banana: .*pip install jax\[tpu\]"):
        open_topology("v5e:banana")


def _end(*arguments):
    os._exit(9)


def test_compilation_that_is_ended_from_outside_says_so(monkeypatch):
    monkeypatch.setattr(apart, "_measure", _end)
    with pytest.raises(PizaError, match=r"a batch of 8 for v5e:2x2 was ended from outside"):
        apart.measure_step_apart(ConfigDict(), "v5e:2x2", 8, 1.0)


@pytest.mark.parametrize(
    ("first", "needs", "best", "most"),
    [
        (4, lambda n: 5 + 10 * n, 9, 5),  # on the line
        (40, lambda n: 5 + 10 * n, 9, 5),  # from above
        (8, lambda n: min(5 + 10 * n, 98) if n < 14 else 110, 13, 8),  # the compiler keeps below the limit for a while
        (1, lambda n: 99 + n, 1, 2),
        (3, lambda n: 200 + n, 0, 4),  # not even one
    ],
)
def test_search_finds_the_largest_batch_that_fits_in_few_compilations(first, needs, best, most):
    unit, compiled = 4, []

    def measure(batch):
        compiled.append(batch)
        total = needs(batch // unit)
        return Measured(batch=batch, parts={}, flops=0, unknown_loops=0, fits=total <= 100, total=total)

    start = measure(first * unit)
    tried = {start.batch: start.total}
    assert largest_batch(measure, start, unit, 100, tried, lambda text: None) == best * unit
    assert len(compiled) == len(set(compiled)) <= most
    assert tried == {batch: needs(batch // unit) for batch in compiled}
