"""Counting what jax compiles."""

from collections.abc import Callable

import jax
import numpy as np

_NAMES: list[str] = []


def _listen(name: str, *_: object, **__: object) -> None:
    if "backend_compile" in name:
        _NAMES.append(name)


jax.monitoring.register_event_duration_secs_listener(_listen)


def during(run: Callable[[], object]) -> int:
    """Number of programs that ``run`` compiles; one more is compiled after it, to show that they are counted."""
    before = len(_NAMES)
    run()
    found = len(_NAMES) - before
    jax.jit(lambda x: x * 3.25 + len(_NAMES))(np.float32(1)).block_until_ready()
    assert len(_NAMES) > before + found, "the counter counts nothing"
    return found
