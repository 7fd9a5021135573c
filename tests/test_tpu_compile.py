"""The real step and zoom, tiny, compiled for TPUs that are not here: `pytest -m tpu_compiler` where libtpu is."""

import importlib.util
import json
import re
import shlex

import pytest

from piza_jax import cli
from piza_jax.cli_examples import EXAMPLES
from piza_jax.plan import plan, search
from piza_jax.plan.chips import find_chip, open_topology
from piza_jax.plan.plan import make_plan
from piza_jax.plan.programs import make_program, measure_step
from piza_jax.plan.text import text
from piza_jax.training import sharding
from tests.test_task import ROOT, small

pytestmark = [
    pytest.mark.tpu_compiler,
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("libtpu") is None,
        reason="no TPU compiler here: `pip install jax[tpu]` into an environment of its own, as .ci/run does",
    ),
]

TOPOLOGY = "v5e:4x4"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
COMMANDS = {line for page in PAGES for line in re.findall(r"^    (piza plan .*--topology.*)", page.read_text(), re.M)}
COMMANDS |= {line for line in EXAMPLES["plan"] if "--topology" in line}


def settings(*overrides):
    return small("peft=piza_adapter_plus", "model.detector.dtype=bfloat16", "model.detector.remat=layers", *overrides)


def measured(*overrides, batch=16):
    config = settings(*overrides)
    program = make_program(config, sharding.mesh_of(config.mesh, open_topology(TOPOLOGY)))
    trained = sum(4 * leaf.size for leaf in program.abstract_state.trainable.values())
    return measure_step(program, batch), trained


def sums(found, kind):
    return sum(one.bytes * one.times for one in found.collectives if one.kind == kind)


def test_gradients_of_the_trainable_parameters_alone_are_summed_over_the_slice():
    found, trained = measured()
    assert found.fits
    assert found.parts["trained"] == trained < found.parts["frozen"]
    assert {one.axes for one in found.collectives} == {("data",)}
    assert {one.kind for one in found.collectives} == {"all-reduce"}
    # Beside the gradients only scalars of the losses and the norm travel.
    assert trained <= sums(found, "all-reduce") < trained + 2**14


def test_frozen_parameters_are_stored_in_shards_and_gathered():
    whole, _ = measured()
    split, _ = measured("mesh.fsdp=4", "mesh.min_shard_size=1024")
    assert split.parts["frozen"] < 0.3 * whole.parts["frozen"]
    gathered = [one for one in split.collectives if one.kind == "all-gather"]
    assert gathered
    assert {one.axes for one in gathered} == {("fsdp",)}


def test_search_compiles_the_same_steps_in_processes_of_their_own(monkeypatch):
    here, _ = measured(batch=32)
    monkeypatch.setattr(search, "_MOST_COMPILES", 2)
    monkeypatch.setattr(plan, "measure_step", None)
    found = make_plan(settings(), TOPOLOGY, batch=32, photo_hw=None, search=True)
    assert found.step == here
    assert sorted(found.tried) == [16, 32]
    assert found.largest_batch == 32


def test_plan_of_a_slice():
    found = make_plan(settings(), TOPOLOGY, batch=16, photo_hw=(512, 512))
    assert (found.device, found.mesh) == ("TPU v5 lite", {"data": 16, "fsdp": 1, "tensor": 1})
    assert found.zoom is not None
    assert found.zoom.fits
    assert found.step_times is not None
    assert 0 < found.step_times.low < found.step_times.high
    printed = text(found)
    for part in ("v5e:4x4: 16 x TPU v5 lite", "of 15.75 GiB", "limiter: ", "all-reduce over data", "examples/s"):
        assert part in printed


@pytest.mark.parametrize("line", sorted(COMMANDS))
def test_a_command_of_the_documentation_plans_for_its_slice(line, tmp_path, monkeypatch, capsys):
    words = [f"{word},smoke" if word.startswith("--config=") else word for word in shlex.split(line)[1:]]
    monkeypatch.chdir(ROOT)
    saved = tmp_path / "plan.json"
    assert cli.main([*words, f"--output={saved}"]) == 0
    shown = capsys.readouterr().out
    assert "v5e:16x16: 256 x TPU v5 lite" in shown
    numbers = json.loads(saved.read_text())
    assert (numbers["mesh"]["data"], numbers["step"]["batch"]) == (256, 1024)
    assert "limiter: " in shown


@pytest.mark.parametrize(
    ("name", "chip", "devices"),
    [("v5p:2x2x1", "v5p", 4), ("v6e:2x2", "v6e", 4), ("v4:2x2x1", "v4", 4), ("tpu7x:2x2x1", "tpu7x", 8)],
)
def test_chips_of_other_topologies(name, chip, devices):
    found = open_topology(name)
    assert len(found) == devices
    assert find_chip(found[0]).name == chip
    assert sharding.make_mesh(-1, 2, devices=found).size == devices
