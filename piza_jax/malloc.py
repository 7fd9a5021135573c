"""A malloc that keeps what is freed, for programs whose large blocks come and go; only glibc's can be told so.

By default a large block goes back to the system when it is freed, and the next one pays a page fault for every 4 KB. A
process that keeps all below a GiB stays at its largest size instead. It has to be told before it starts.
"""

import contextlib
import os
import sys
from collections.abc import Iterator

_TUNABLES = "GLIBC_TUNABLES"

# Release nothing to the system, have one heap, in large pages where there are. Only blocks of a GiB are taken and given
# back by themselves: small ones would settle in a free one of the heap, and the next of its size would be a new one.
_SETTINGS = {"trim_threshold": 2**40, "mmap_threshold": 2**30, "arena_max": 1, "hugetlb": 1}


def keeping() -> dict[str, str]:
    """The environment that a program is to be started with; empty where malloc is another, or has been told already."""
    chosen = any(name.startswith("MALLOC_") for name in os.environ) or "malloc" in os.environ.get(_TUNABLES, "")
    if chosen or not sys.platform.startswith("linux"):
        return {}
    settings = [os.environ.get(_TUNABLES, ""), *(f"glibc.malloc.{name}={value}" for name, value in _SETTINGS.items())]
    return {_TUNABLES: ":".join(filter(None, settings))}


@contextlib.contextmanager
def kept_by_children() -> Iterator[None]:
    """Processes that are started within it keep their memory; this one stays as it is."""
    added = keeping()
    before = {name: os.environ.get(name) for name in added}
    os.environ.update(added)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
