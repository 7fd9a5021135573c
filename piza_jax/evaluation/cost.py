"""What grounding costs when everything is compiled: time, and the peak of memory."""

import resource
import sys
import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from piza_jax.piza.grounding import Grounder, Grounding

DEVICE, PROCESS = "device", "process"

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_COMPILED = "backend_compile"  # part of the name of the event that jax reports for each program
_TRIES = 3  # a program that is compiled every time is measured with that
_compilations: list[str] = []


class Memory(NamedTuple):
    """A peak of memory.

    Attributes:
        peak: bytes.
        of: DEVICE, what jax has taken of the first device, or PROCESS, what all of this process has resident.
        bound: it was reached earlier in this process, so that ``peak`` is only an upper bound.
    """

    peak: int
    of: str
    bound: bool


class Meter:
    """Grounds like a grounder, and measures it; a call that compiled something is made again and measured then.

    Measured is ``Grounder.ground`` on pixels: tokens, the way to the device, the detector and the way back, but not
    the reading of files.
    """

    def __init__(self, grounder: Grounder):
        """Measure a grounder. One after the other: several at a time would share the process's peak."""
        self.grounder, self.seconds, self.count = grounder, 0.0, 0
        self.memory: Memory | None = None
        _listen()

    def ground(self, photos: Sequence[np.ndarray], expressions: Sequence[str]) -> list[Grounding]:
        """Arguments, result and errors as ``Grounder.ground``."""
        for _ in range(_TRIES):
            compiled, before = len(_compilations), _start_memory()
            start = time.perf_counter()
            found = self.grounder.ground(photos, expressions)
            seconds = time.perf_counter() - start
            if len(_compilations) == compiled:
                break
        memory = _peak_memory(before)
        if self.memory is None or memory.peak > self.memory.peak or (self.memory.bound and not memory.bound):
            self.memory = memory
        self.seconds += seconds
        self.count += len(found)
        return found

    @property
    def ms(self) -> float:
        """Milliseconds an expression, over all calls so far."""
        return 1000 * self.seconds / self.count


def _note(event: str, duration_secs: float, **_: str | int) -> None:
    if _COMPILED in event:
        _compilations.append(event)


@cache
def _listen() -> None:
    jax.monitoring.register_event_duration_secs_listener(_note)


def _device_peak() -> int | None:
    """Bytes; None for backends that do not count, such as the CPU's. It can only grow."""
    return (jax.local_devices()[0].memory_stats() or {}).get("peak_bytes_in_use")


def _process_peak() -> int:
    """Bytes."""
    if _STATUS.is_file():
        found = [line.split()[1] for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM")]
        if found:
            return 1024 * int(found[0])
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used if sys.platform == "darwin" else 1024 * used


def _start_memory() -> int:
    """The peak so far, set back to the present use where the system can do that (Linux)."""
    if (peak := _device_peak()) is not None:
        return peak
    try:
        _CLEAR.write_text("5")
    except OSError:
        return _process_peak()
    return 0


def _peak_memory(before: int) -> Memory:
    device = _device_peak()
    peak = _process_peak() if device is None else device
    return Memory(peak, PROCESS if device is None else DEVICE, bound=peak <= before)
