"""The same measures from one device and from eight, of one process and of two, whatever the batches."""

import json
import os
import socket
import subprocess
import sys

import jax
import numpy as np
import pytest

from piza_jax.evaluation import metrics
from tests import measure_process
from tests.test_details import assert_identical, make
from tests.test_task import ROOT


def assert_same_headline(one, other):
    assert list(one) == list(other)
    for name, values in one.items():
        assert (values is None) == (other[name] is None), name
        for key, value in (values or {}).items():
            assert other[name][key] == pytest.approx(value, rel=5e-7), (name, key)


@pytest.mark.parametrize("batch_size", [8, 64, 301])
def test_headline_measures_are_those_of_one_batch_on_one_device(batch_size):
    outcomes = make(9, 301)[2]
    columns = [np.asarray(column) for column in (outcomes.iou, outcomes.steps, outcomes.area_px2, outcomes.valid)]
    whole = metrics.summarise({"val": metrics.measure(*columns)})["val"]
    for device_count in (1, 8):
        mesh = jax.make_mesh((device_count,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
        spread = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
        size = -(-batch_size // 8) * 8
        parts = []
        for start in range(0, 301, size):
            rows = [column[start : start + size] for column in columns]
            batch = [jax.device_put(np.pad(row, (0, size - len(row))), spread) for row in rows]
            assert len(batch[0].sharding.device_set) == device_count
            # Many programs of eight devices in flight at once can starve each other of the threads of two cores.
            parts.append(jax.block_until_ready(jax.jit(metrics.measure)(*batch)))
        assert_same_headline(whole, metrics.summarise({"val": metrics.merge(parts)})["val"])


@pytest.mark.slow
def test_two_processes_measure_what_one_does():
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    flags = "--xla_force_host_platform_device_count=4"
    environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    commands = [[sys.executable, "-m", "tests.measure_process", address, "2", str(number)] for number in (0, 1)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    running = [subprocess.Popen(command, cwd=ROOT, env=environment, **pipes) for command in commands]
    try:
        printed = [process.communicate(timeout=240) for process in running]
    finally:
        for process in running:
            process.kill()
    for process, (_, error) in zip(running, printed, strict=True):
        assert process.returncode == 0, error[-3000:]
    outcomes = make(8, measure_process.COUNT)[2]
    for out, _ in printed:
        found = json.loads(out.splitlines()[-1])
        assert found["devices"] == 8
        assert_same_headline(measure_process.headline(outcomes), found["headline"])
        assert_identical(measure_process.details(outcomes), found["details"])
