"""Training runs of the methods that zoom: plain weights in, a method out, and the plain weights back."""

import os
import subprocess
import sys

import numpy as np
import pytest
from flax import nnx

from piza_jax.models.params import flatten_state
from piza_jax.peft import select
from piza_jax.piza.plain import switch_off
from piza_jax.training import checkpoint, task
from tests.conftest import HASTY
from tests.peft_forms import ROOT, SMALL, form, run_config

METHODS = ("piza_coop", "piza_lora", "piza_vpt")
STEPS = 3
# No decay and no clipping: then a parameter moves exactly if a gradient reaches it.
RUN = (
    *SMALL,
    f"train.num_steps={STEPS}",
    "evaluation.every=0",
    "optimizer.weight_decay=0",
    "optimizer.clip_norm=0",
    "optimizer.learning_rate=1e-2",
    "optimizer.eps=1e-30",
    "optimizer.rate_factors=()",
)


@pytest.fixture(scope="module")
def plain_run(tmp_path_factory):
    """Workdir of a plain detector, as full fine-tuning would leave it."""
    workdir = tmp_path_factory.mktemp("plain")
    config = run_config("full")
    built = task.build_task(config, workdir)
    checkpoint.prepare_workdir(workdir, config)
    with checkpoint.Checkpoints(workdir) as checkpoints:
        checkpoints.save(1, form("full").moved, {}, iter(built.dataset))
    return workdir


@pytest.fixture(scope="module")
def runs(plain_run, tmp_path_factory):
    """{method: workdir} after runs from the command line, at the same time; their compilation is not worth its time."""
    workdirs = {method: tmp_path_factory.mktemp(method) for method in METHODS}
    environment = {**os.environ, "XLA_FLAGS": " ".join(HASTY)}
    running = {
        method: subprocess.Popen(
            [
                *(sys.executable, "-m", "piza_jax.cli", "train", f"--config=configs/piza_sorec.py:peft={method},smoke"),
                *(f"--config.{word}" for word in (*RUN, f"pretrained={plain_run}")),
                f"--workdir={workdir}",
            ],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for method, workdir in workdirs.items()
    }
    printed = {method: process.communicate()[0] for method, process in running.items()}
    for method, process in running.items():
        assert process.returncode == 0, printed[method]
    return workdirs, printed


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_a_run_moves_all_that_the_method_trains_and_nothing_else(runs, method):
    workdirs, printed = runs
    model, config = checkpoint.load_model(workdirs[method])
    assert config["peft"] == method
    values = flatten_state(nnx.state(model, nnx.Param))
    trained = {name for name in values if select.is_trainable(method, name)}
    still = {name for name, first in form("full").moved.items() if np.array_equal(values[name], first)}
    assert still == form("full").names - trained
    count = sum(values[name].size for name in trained)
    assert f"{count:,} parameters are trained" in printed[method]
    moments = _averages(workdirs[method], method)
    assert moments.keys() == trained
    # A shift of all keys changes no attention.
    assert [name for name, value in moments.items() if not np.any(value) and not name.endswith("key/bias")] == []


def _averages(workdir, method):
    """{name: Adam's mean of the squared gradients} of the last checkpoint."""
    from orbax.checkpoint import v1 as ocp

    state = ocp.load_checkpointables(workdir / "checkpoints" / str(STEPS), {"optimizer": None})["optimizer"]["state"]
    found = [part["nu"] for part in state if isinstance(part, dict) and "nu" in part]
    assert len(found) == 1
    return found[0]


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_the_trained_model_switched_off_is_the_plain_detector_bit_for_bit(runs, plain_run, method):
    workdirs, _ = runs
    plain = form("full")
    model, _ = checkpoint.load_model(workdirs[method])
    before = plain.detect(plain.moved, 0.3)
    changed = form(method).detect(flatten_state(nnx.state(model, nnx.Param)), 0.3)
    assert np.abs(changed["boxes"] - before["boxes"]).max() > 1e-3
    original, _ = checkpoint.load_model(plain_run)
    off = switch_off(model, method, flatten_state(nnx.state(original, nnx.Param)))
    values = flatten_state(nnx.state(off, nnx.Param))
    assert values.keys() == plain.names
    for name, value in plain.detect(values, 0.3).items():
        np.testing.assert_array_equal(value, before[name])
