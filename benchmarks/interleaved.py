"""What the benchmarks share: both sides in turn under the same conditions.

Both sides run in one process, on one device and with the same number of threads: ours, the peer, ours, the peer ..., so
that whatever else the machine does meets both. The first call of each, in which ours compiles, is timed apart.
"""

import argparse
import contextlib
import gc
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

from piza_jax.errors import PizaError

# tensorfloat32: float32 arrays whose products a GPU rounds, on both sides; float32: none does.
DTYPES = ("float32", "tensorfloat32", "bfloat16")


@dataclass(frozen=True)
class Timing:
    """How long one side takes.

    Attributes:
        first: seconds of its first call, with all that is compiled or allocated in it.
        seconds: of each measured call.
    """

    first: float
    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """Seconds."""
        return statistics.median(self.seconds)

    def text(self, unit: str = "s", factor: float = 1.0) -> str:
        """Median with the smallest and largest, in a unit of which a second has ``factor``."""
        middle, low, high = (figure(factor * x) for x in (self.median, min(self.seconds), max(self.seconds)))
        return f"{middle} {unit} ({low}..{high})"


@dataclass(frozen=True)
class Machine:
    """What both sides run on.

    Attributes:
        kind: "cpu" or "gpu".
        device: JAX's name for it.
        threads: of each side, on the host.
        dtype: one of DTYPES.
        load: processes that wanted a core when the benchmark began, a mean over the minute before.
    """

    kind: str
    device: Any
    threads: int
    dtype: str
    load: float

    @property
    def torch_device(self) -> str:
        """PyTorch's name for the device."""
        return "cuda" if self.kind == "gpu" else "cpu"

    def autocast(self) -> Any:
        """PyTorch's own mixed precision where the benchmark is of bfloat16; ours has the like in its configuration."""
        import torch

        return torch.autocast(self.torch_device, torch.bfloat16, enabled=self.dtype == "bfloat16")

    def synchronise(self) -> None:
        """Wait until PyTorch's device has done what it was given."""
        if self.kind == "gpu":
            import torch

            torch.cuda.synchronize()

    def describe(self) -> str:
        """Name of the processor, threads and load."""
        host = f"{self.threads} thread{'s' * (self.threads > 1)}, load {self.load:.1f}"
        return f"{self.device.device_kind}, {host}" if self.kind == "gpu" else f"{_processor()}, {host}"

    def peaks(self) -> str:
        """Most memory that each framework had on the device so far; only a GPU tells."""
        if self.kind != "gpu":
            return "-"
        import torch

        ours = self.device.memory_stats()["peak_bytes_in_use"]
        return f"{ours / 2**20:.0f} MiB; {torch.cuda.max_memory_allocated() / 2**20:.0f} MiB"


def parser(about: str | None, *, runs: int = 5, dtypes: Sequence[str] = DTYPES) -> argparse.ArgumentParser:
    """The options of every benchmark; ``about`` is its module's docstring."""
    made = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--runs", type=int, default=runs, help="measured runs of each side")
    made.add_argument("--threads", type=int, default=0, help="cores of the host for each side; 0: all there are")
    made.add_argument("--device", choices=("auto", "cpu", "gpu"), default="auto", help="auto: a GPU if both see one")
    made.add_argument("--dtype", choices=dtypes, default=dtypes[0])
    made.add_argument("--small", action="store_true", help="a size that says nothing and runs in seconds")
    made.add_argument("--append", action="store_true", help="write the row into benchmarks/RESULTS.md")
    return made


@contextlib.contextmanager
def session(options: argparse.Namespace) -> Iterator[Machine]:
    """Device, threads and precision of both frameworks by the options; put back at the end.

    To be entered before either has computed anything: their pools of threads keep the size that they begin with.

    Raises:
        PizaError: no torch, more threads than cores, or a GPU that one of the two does not see.
    """
    try:
        import torch
    except ImportError as error:
        raise PizaError('the peers need torch and transformers: pip install "piza-jax[test]"') from error
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))
    threads = options.threads or len(cores)
    if not 1 <= threads <= len(cores):
        raise PizaError(f"--threads={threads} on {len(cores)} cores; give 1..{len(cores)}")
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
    if load > 0.5:
        print(f"the machine is busy (load {load:.1f}): these times will not hold", file=sys.stderr)
    with contextlib.ExitStack() as stack:
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, cores[:threads])
            stack.callback(os.sched_setaffinity, 0, cores)
        stack.callback(torch.set_num_threads, torch.get_num_threads())
        torch.set_num_threads(threads)
        # Both frameworks share the GPU; by default JAX would take three quarters of its memory at once.
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
        if options.device == "cpu" and jax.config.jax_platforms != "cpu":
            jax.config.update("jax_platforms", "cpu")
        device = _device(options.device, torch.cuda.is_available())
        kind = "cpu" if device.platform == "cpu" else "gpu"
        stack.enter_context(jax.default_device(device))
        if kind == "gpu":
            exact = options.dtype == "float32"
            stack.enter_context(jax.default_matmul_precision("highest" if exact else "tensorfloat32"))
            torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = not exact
        yield Machine(kind, device, threads, options.dtype, load)


def _device(wanted: str, torch_sees_gpu: bool) -> Any:
    try:
        gpus = [] if wanted == "cpu" else jax.devices("gpu")
    except RuntimeError:  # JAX's way to say that there is none
        gpus = []
    if gpus and torch_sees_gpu:
        return gpus[0]
    if wanted == "gpu":
        without = " and ".join(name for name, sees in (("jax", gpus), ("torch", torch_sees_gpu)) if not sees)
        raise PizaError(f"--device=gpu, and {without} sees none; install its build for the GPU, or give --device=cpu")
    return jax.devices("cpu")[0]


def alternate(
    ours: Callable[[], Any],
    peer: Callable[[], Any],
    runs: int,
    *,
    warm_up: int = 1,
    settle: int = 0,
    pause: float = 0.1,
    clock: Callable[[], float] = time.perf_counter,
) -> tuple[Timing, Timing]:
    """Time two callables in turn.

    Args:
        ours: returns when its work is done, on the device too.
        peer: the same.
        runs: measured calls of each.
        warm_up: calls of each between the first one and these.
        settle: calls of a side before each measured one, where work is timed that goes on, as a training's does: the
            first call after the other side may take longer, in the system, than those that follow it.
        pause: seconds before each measured call, in which the other side's threads, which wait for work at full speed,
            go to sleep.
        clock: what tells the time.

    Raises:
        PizaError: no run.
    """
    if runs < 1:
        raise PizaError(f"--runs={runs}; give at least 1")
    sides = ours, peer
    first = [_seconds(side, clock) for side in sides]
    for side in sides * warm_up:
        side()
    seconds: tuple[list[float], list[float]] = ([], [])
    for _ in range(runs):
        for side, times in zip(sides, seconds, strict=True):
            gc.collect()
            for _ in range(settle):
                side()
            time.sleep(pause)
            times.append(_seconds(side, clock))
    return Timing(first[0], tuple(seconds[0])), Timing(first[1], tuple(seconds[1]))


def _seconds(side: Callable[[], Any], clock: Callable[[], float]) -> float:
    began = clock()
    side()
    return clock() - began


def check(what: str, difference: float, most: float) -> str:
    """The difference of the two sides in words; PizaError if they did not compute the same thing."""
    text = f"{what} {difference:.1e}"
    print(f"difference: {text} (at most {most:g})", flush=True)
    if not difference <= most:  # NaN too
        raise PizaError(f"the two sides did not compute the same: {text}, more than {most:g}; there is no row")
    return text


def figure(value: float) -> str:
    """Three digits, and no exponent of ten where a number needs none."""
    return f"{value:.3g}" if value < 1000 else f"{value:.0f}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line for line in lines if line.startswith("model name")).split(":")[1].strip()
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
