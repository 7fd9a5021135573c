"""One process of a small run: `python -m tests.process_run WORKDIR ADDRESS PROCESSES NUMBER`; eight devices in all.

It trains on the pipeline's own batches, whose order does not depend on the number of processes.
"""

import argparse
import os
import sys
import time

import grain
import numpy as np

from piza_jax.data.order import source_index
from piza_jax.data.pipeline import Batches, process_positions
from piza_jax.errors import PizaError
from tests import tiny_task

RECORDS, BATCH = 40, 16


class Example:
    """Position in the stream -> a sample that is a function of it."""

    def __init__(self, slow):
        self.slow = slow
        self.inputs = np.random.default_rng(0).normal(size=(RECORDS, 8)).astype(np.float32)

    def __call__(self, position):
        time.sleep(self.slow)
        index = source_index(position, RECORDS, seed=5)
        noise = np.random.default_rng([5, position]).normal(size=8).astype(np.float32)
        return {"x": self.inputs[index] + 0.1 * noise, "y": self.inputs[index].sum(), "position": np.int32(position)}


def make_batches(process, processes, slow=0.0):
    def make(first_batch):
        positions = process_positions(first_batch, BATCH, process, processes)
        return grain.MapDataset.range(10_000).map(positions).map(Example(slow)).batch(BATCH // processes)

    return Batches(make, 600, {"num_records": RECORDS, "batch_size": BATCH, "seed": 5}, num_workers=0, read_ahead=2)


def main(arguments):
    parser = argparse.ArgumentParser()
    parser.add_argument("workdir")
    parser.add_argument("address")
    parser.add_argument("processes", type=int)
    parser.add_argument("number", type=int)
    parser.add_argument("--slow", type=float, default=0.0)
    parser.add_argument("--fsdp", type=int, default=1)
    options = parser.parse_args(arguments)
    os.environ["JAX_PLATFORMS"] = "cpu"
    os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={8 // options.processes}"
    from piza_jax.training.distributed import processes
    from piza_jax.training.loop import fit
    from piza_jax.training.program import Task

    flags = (options.address, options.processes, options.number) if options.processes > 1 else ()
    try:
        with processes(*flags, connect_timeout_s=120, heartbeat_timeout_s=10):
            overrides = {"train.batch_size": BATCH, "train.num_steps": 20, "checkpoint.every": 4}
            config = tiny_task.make_config(**overrides, **{"mesh.fsdp": options.fsdp})
            task = tiny_task.make_task(config)
            task = Task(**{**task.__dict__, "dataset": make_batches(options.number, options.processes, options.slow)})
            result = fit(task, config, options.workdir)
    except PizaError as error:
        print(f"PizaError: {error}", file=sys.stderr)
        return 1
    print(f"done step={result.step} interrupted={result.interrupted}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
