"""Which platform a program is traced for, where an operation has one form for each."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import jax

_any_platform = ContextVar("any_platform", default=False)


@contextmanager
def for_any_platform() -> Iterator[None]:
    """What is traced inside holds the forms of all platforms; the choice falls when it is lowered, as exports need."""
    token = _any_platform.set(True)
    try:
        yield
    finally:
        _any_platform.reset(token)


def traced_platform() -> str | None:
    """Platform of the mesh in force, which may be compiled for without being here, or else of the default device.

    None inside ``for_any_platform`` without a mesh: both forms are needed there. They are not otherwise, since a
    choice inside the program keeps what the backward pass of either form would need.
    """
    device = jax.sharding.get_abstract_mesh().abstract_device
    if device is not None:
        return device.platform
    return None if _any_platform.get() else jax.default_backend()
