"""A compilation in a process of its own: a TPU's compiler keeps gigabytes of its host until the process ends."""

import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

import jax
from ml_collections import ConfigDict

from piza_jax.errors import PizaError
from piza_jax.plan.chips import open_topology
from piza_jax.plan.programs import Measured, make_program, measure_step
from piza_jax.training import sharding


def measure_step_apart(config: ConfigDict, topology: str, batch: int, steps_per_epoch: float) -> Measured:
    """programs.measure_step for a TPU that is not here, with all memory given back at the end.

    Args:
        config: as for training.
        topology: such as "v5e:16x16".
        batch: samples of a step over all devices.
        steps_per_epoch: as for programs.make_program.

    Raises:
        PizaError: as measure_step, or the process was ended from outside, as a host without memory left does.
    """
    spawning = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawning, initializer=_enter) as process:
        try:
            return process.submit(_measure, config, topology, batch, steps_per_epoch).result()
        except BrokenProcessPool as error:
            raise PizaError(
                f"the compilation of a batch of {batch} for {topology} was ended from outside, most likely because "
                "this machine ran out of memory; a full-size one takes some 8 GB"
            ) from error


def _enter() -> None:
    os.environ["ALLOW_MULTIPLE_LIBTPU_LOAD"] = "1"  # the process that waits has opened it too
    jax.config.update("jax_platforms", "cpu")  # a TPU that is here belongs to that process


def _measure(config: ConfigDict, topology: str, batch: int, steps_per_epoch: float) -> Measured:
    mesh = sharding.mesh_of(config.mesh, open_topology(topology))
    return measure_step(make_program(config, mesh, steps_per_epoch), batch)
