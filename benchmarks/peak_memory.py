"""The most memory that a call needs beyond what the process holds when it begins."""

import contextlib
import ctypes
import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any

from piza_jax.errors import PizaError

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def peak_of(call: Callable[[], Any]) -> int:
    """Bytes of the host that a call needs at once, over those held before it; its result counts while it is made.

    Raises:
        PizaError: a system that does not tell; only Linux does.
    """
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)  # what was freed before would hide what is needed now
    try:
        _RESET.write_text("5", encoding="ascii")  # the peak counts from here on
        before = _field("VmRSS")
    except OSError as error:
        raise PizaError(f"peak memory is measured on Linux only: {error}; give --no-memory") from error
    call()
    return _field("VmHWM") - before


def _field(name: str) -> int:
    lines = _STATUS.read_text(encoding="ascii").splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(f"{name}:")).split()[1])
