"""What makes training on CPUs faster, to be asked for before JAX starts: memory that stays, a device for each core.

A small training step on two cores took 2.2 s, and 0.8 to 1.1 s of their time went into page faults; see
benchmarks/RESULTS.md.
"""

import os
import sys
from importlib import metadata, util

import jax

from piza_jax import malloc

_FLAG = "xla_force_host_platform_device_count"


def keep_memory() -> None:
    """Start this program anew with a malloc that keeps what is freed, if it computes on a CPU and none is chosen yet.

    A compiled program's temporaries are one large block of memory, which each call would fault in again, as it still
    does above a GiB.
    """
    environment = malloc.keeping()
    if environment and _computes_on_cpu():
        os.environ.update(environment)
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def split(devices: int) -> int:
    """Divide the CPU into devices, as far as there are cores, so that each computes a part of a batch.

    Operations of one device wait for each other and many of them use one core only.

    Args:
        devices: how many are wanted.

    Returns:
        How many there are asked for now: 1 where JAX has started already or the user has chosen by XLA_FLAGS or
        JAX_NUM_CPU_DEVICES.
    """
    wanted = max(min(devices, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1), 1)
    if _FLAG in os.environ.get("XLA_FLAGS", "") or "JAX_NUM_CPU_DEVICES" in os.environ or wanted == 1:
        return 1
    try:
        jax.config.update("jax_num_cpu_devices", wanted)
    except RuntimeError:  # it has started
        return 1
    return wanted


def _computes_on_cpu() -> bool:
    """Whether JAX will, as far as can be told before it starts."""
    chosen = os.environ.get("JAX_PLATFORMS", "")
    if chosen:
        return chosen.split(",")[0] == "cpu"
    return util.find_spec("libtpu") is None and not metadata.entry_points(group="jax_plugins")
