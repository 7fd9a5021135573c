"""What a step costs: images a second, FLOP/s and memory, from the compiled program and the clock."""

import re
import time
from dataclasses import dataclass
from typing import Any

import jax

from piza_jax.errors import PizaError

_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_CURE = (
    " on each device; lower train.batch_size, set model.detector.remat=layers or model.detector.dtype=bfloat16, freeze "
    "more, or split parameters over mesh.fsdp (`piza plan` shows what each takes)"
)


@dataclass(frozen=True)
class StepCost:
    """Cost of one compiled step.

    flops counts all devices together; it is the compiler's own estimate, which counts a loop's body once, so it is a
    lower bound where the model has loops. Memory is bytes on one device; None where the backend does not say.
    """

    flops: float | None
    argument_bytes: int | None
    output_bytes: int | None
    temporary_bytes: int | None
    peak_bytes: int | None

    @staticmethod
    def of(compiled: jax.stages.Compiled, num_devices: int) -> "StepCost":
        """Read the cost of a compiled program that runs on num_devices."""
        analysis: Any = compiled.cost_analysis()
        analysis = analysis[0] if isinstance(analysis, (list, tuple)) and analysis else analysis
        flops = analysis.get("flops") if analysis else None
        memory = compiled.memory_analysis()
        if memory is None:
            return StepCost(flops and flops * num_devices, None, None, None, None)
        arguments, outputs = memory.argument_size_in_bytes, memory.output_size_in_bytes
        temporaries = memory.temp_size_in_bytes
        peak = arguments + outputs - memory.alias_size_in_bytes + temporaries  # a donated argument is its output
        return StepCost(flops and flops * num_devices, arguments, outputs, temporaries, peak)

    def describe(self) -> str:
        """One line for the log."""
        flops = "FLOPs unknown" if not self.flops else f"{_si(self.flops)}FLOP"
        if self.peak_bytes is None:
            return f"compiled step: {flops}; the backend does not report memory"
        return (
            f"compiled step: {flops} in all; memory a device {_si(self.peak_bytes)}B "
            f"(arguments {_si(self.argument_bytes)}B, temporaries {_si(self.temporary_bytes)}B)"
        )


def needed_bytes(message: str) -> int | None:
    """Bytes that a program needs, from the message of a compiler that had too few; None if it does not say."""
    for pattern in (r"[Uu]sed ([\d.]+)([KMGT]) of", r"\(([\d.]+)([KMGT])\) exceeds"):
        found = re.search(pattern, message)
        if found:
            return int(float(found.group(1)) * _UNITS[found.group(2)])
    return None


def compile_step(lowered: Any, num_devices: int, limit: int | None) -> tuple[jax.stages.Compiled, StepCost]:
    """Compile a lowered step, and refuse one that cannot fit before it runs.

    Args:
        lowered: of jax.jit.
        num_devices: that it runs on.
        limit: bytes that a device has; None if it does not say.

    Raises:
        PizaError: it needs more memory than a device has, with both numbers.
    """
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        needed = needed_bytes(str(error))
        raise PizaError(
            f"the training step needs {_known(needed)}B of memory, {_known(limit)}B are there{_CURE}"
        ) from error
    cost = StepCost.of(compiled, num_devices)
    if limit and cost.peak_bytes and cost.peak_bytes > limit:
        raise PizaError(
            f"the training step needs {_si(cost.peak_bytes)}B of memory (arguments {_si(cost.argument_bytes)}B, "
            f"temporaries {_si(cost.temporary_bytes)}B), {_si(limit)}B are there{_CURE}"
        )
    return compiled, cost


class Throughput:
    """Images a second and estimated FLOP/s since the last reading."""

    def __init__(self, batch_size: int, flops: float | None):
        self._batch_size, self._flops = batch_size, flops
        self._steps, self._pause = 0, 0.0
        self._start = time.perf_counter()

    def step(self) -> None:
        """Count one finished step."""
        self._steps += 1

    def read(self) -> dict[str, float]:
        """Scalars for the log since the last call, without the time spent in pauses; empty when no step was counted."""
        now = time.perf_counter()
        seconds = max(now - self._start - self._pause, 1e-9)
        steps, self._steps = self._steps, 0
        self._start, self._pause = now, 0.0
        if not steps:
            return {}
        rates = {"images_per_second": steps * self._batch_size / seconds}
        if self._flops:
            rates["flops_per_second"] = steps * self._flops / seconds
        return rates

    def exclude(self, seconds: float) -> None:
        """Leave out time that was not training, such as an evaluation."""
        self._pause += seconds


def _known(value: float | None) -> str:
    return _si(value) if value else "an unknown number of "


def _si(value: float | None) -> str:
    size, prefixes = float(value or 0), ["", "k", "M", "G", "T", "P"]
    while size >= 1000 and len(prefixes) > 1:
        size /= 1000
        prefixes.pop(0)
    return f"{size:.3g} {prefixes[0]}"
