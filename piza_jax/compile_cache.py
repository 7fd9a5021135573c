"""Compiled programs kept between starts, so that only the first start on a machine waits for the compiler.

``JAX_COMPILATION_CACHE_DIR`` names another folder; set to nothing, it switches the cache off.
"""

import hashlib
import os
import platform
import warnings
from pathlib import Path

import jax

VARIABLE = "JAX_COMPILATION_CACHE_DIR"
LARGEST = 4 * 2**30  # bytes; what was not used for longest goes first
LEAST_SECONDS = 0.5  # what compiles faster is not worth a file


def enable() -> Path | None:
    """Keep what this process compiles, and take what an earlier one did.

    Returns:
        The folder; None where the user has switched the cache off or the folder cannot be written.
    """
    given = os.environ.get(VARIABLE)
    if given == "":
        jax.config.update("jax_enable_compilation_cache", False)
        return None
    folder = Path(given) if given else user_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        writable = os.access(folder, os.W_OK)
    except OSError:
        writable = False
    if not writable:
        warnings.warn(f"compiled programs are not kept: {folder} cannot be written; set {VARIABLE}", stacklevel=2)
        return None
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_compilation_cache_max_size", LARGEST)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", LEAST_SECONDS)
    return folder


def folder() -> Path | None:
    """Where this process keeps what it compiles; None: nowhere, or in no folder of this machine."""
    place = getattr(jax.config, "jax_compilation_cache_dir", None)
    return Path(place) if place and Path(place).is_dir() else None


def user_folder() -> Path:
    """The folder of this user and this kind of processor: a home may be shared by machines of several kinds."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "piza_jax" / f"compiled-{platform.machine()}-{_processor()}"


def _processor() -> str:
    """A short name of what instructions the processor has, as Linux lists them; of its model elsewhere."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        about = next(line for line in lines if line.startswith(("flags", "Features")))
    except (OSError, StopIteration):
        about = platform.processor()
    return hashlib.sha256(about.encode()).hexdigest()[:8]
