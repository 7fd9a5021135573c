"""Memory that a process keeps and cores that are devices of their own, each in a process of its own."""

import json
import os
import subprocess
import sys

import pytest

from tests.test_task import ROOT

# Prints what was done, the number of devices, and page faults in a call of a program with 130 MB of temporaries: the
# median of three, for a small block may settle among them once, and one of them has a new place then.
SCRIPT = """
import json, os, resource, statistics, sys
from piza_jax import cpu
if "keep" in sys.argv:
    cpu.keep_memory()
count = cpu.split(int(sys.argv[1]))
import jax, jax.numpy as jnp
x = jnp.ones((64, 512, 512))
call = jax.jit(lambda x: jnp.sum(jnp.flip(x, 1) @ jnp.sin(x)))
faults = []
for _ in range(6):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    call(x).block_until_ready()
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
kept = "glibc.malloc.arena_max=1" in os.environ.get("GLIBC_TUNABLES", "")
print(json.dumps([kept, count, jax.device_count(), statistics.median(faults[3:]), cpu.split(2)]))
"""


# Prints how much memory the process holds, in MB, after blocks of 200 MB and of 1.2 GB that it has freed.
FREED = """
import json, resource, numpy as np
from piza_jax import cpu
cpu.keep_memory()
held = []
for size in (200e6, 1200e6):
    block = np.ones(int(size), np.uint8)
    del block
    held.append(int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize() / 1e6)
print(json.dumps(held))
"""


def run(*arguments, script=SCRIPT, **environment):
    shared = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    shared |= {"XLA_FLAGS": "", "JAX_PLATFORMS": "cpu", **environment}
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments], cwd=ROOT, env=shared, capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="it is glibc's memory")
def test_memory_that_is_kept_is_not_faulted_in_again():
    kept, _, _, faults, _ = run("1", "keep")
    _, _, _, usual, _ = run("1")
    assert kept
    assert usual > 1000
    assert faults < usual / 20


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="it is glibc's memory")
def test_blocks_of_more_than_a_gib_are_given_back():
    after_small, after_large = run(script=FREED)
    assert after_small > 200
    assert after_large < after_small + 200


def test_a_cpu_is_as_many_devices_as_are_asked_for_and_there_are_cores():
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
    for wanted in ("1", "2", "1000"):
        _, count, found, _, late = run(wanted)
        assert count == found == min(int(wanted), cores)
        assert late == min(int(wanted), 2, cores)  # JAX runs by then, and stays as it is


def test_what_the_user_has_chosen_stays():
    kept, count, found, *_ = run("2", "keep", MALLOC_ARENA_MAX="2", JAX_NUM_CPU_DEVICES="3")
    assert (kept, count, found) == (False, 1, 3)
    _, count, found, *_ = run("2", XLA_FLAGS="--xla_force_host_platform_device_count=4")
    assert (count, found) == (1, 4)
    assert run("1", "keep", GLIBC_TUNABLES="glibc.malloc.arena_max=4")[0] is False
