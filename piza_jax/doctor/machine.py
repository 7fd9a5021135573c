"""Python, packages, devices, memory and disk."""

import os
import platform
import shutil
import time
from importlib import metadata
from pathlib import Path

import jax
import numpy as np
from packaging.requirements import Requirement  # comes with tensorboardX
from packaging.specifiers import SpecifierSet

import piza_jax
from piza_jax.doctor.check import Check, size
from piza_jax.errors import PizaError

GROUP = "machine"
LITTLE_DISK, ENOUGH_DISK = 5 * 10**8, 5 * 10**9  # bytes, where nothing is known of the model
_DISTRIBUTION = "piza-jax"
# Files that a machine with an accelerator has.
_ACCELERATORS = ("nvidia0", "accel0", "vfio/0")


def python() -> list[Check]:
    """The version of Python against the one that the package asks for."""
    wanted = metadata.metadata(_DISTRIBUTION)["Requires-Python"]
    version = platform.python_version()
    good = SpecifierSet(wanted).contains(version, prereleases=True)
    cure = "" if good else f"make a virtual environment with a Python {wanted}"
    return [Check(GROUP, "Python", "ok" if good else "failed", f"{version} (wanted {wanted})", cure)]


def packages() -> list[Check]:
    """Installed packages against the requirements of the default install, and against the pins where they lie."""
    listed = [Requirement(text) for text in metadata.requires(_DISTRIBUTION) or []]
    wanted = [one for one in listed if one.marker is None or one.marker.evaluate({"extra": ""})]
    bad = []
    for one in wanted:
        version = _version(one.name)
        if version is None:
            bad.append(f"{one.name} is missing")
        elif not one.specifier.contains(version, prereleases=True):
            bad.append(f"{one.name} is {version}, not {one.specifier}")
    cure = "python -m pip install -c constraints.txt -e . in the folder of the package" if bad else ""
    found = "; ".join(bad) or f"{len(wanted)} requirements met, jax {jax.__version__}"
    return [Check(GROUP, "packages", "failed" if bad else "ok", found, cure), *_pins()]


def _pins() -> list[Check]:
    path = Path(piza_jax.__file__).resolve().parents[1] / "constraints.txt"
    if not path.is_file():
        return []
    pins = dict(line.split("==") for line in path.read_text(encoding="utf-8").split() if "==" in line)
    here = {name: version for name in pins if (version := _version(name)) is not None}
    # Builds such as 2.13.0+cpu are of the pinned version.
    other = {name: one for name, one in here.items() if not SpecifierSet(f"=={pins[name]}").contains(one)}
    if not other:
        return [Check(GROUP, "pins", "ok", f"what is installed has the versions of {path.name}")]
    first = ", ".join(f"{name} {one} (pinned {pins[name]})" for name, one in list(other.items())[:5])
    more = f" and {len(other) - 5} more" if len(other) > 5 else ""
    cure = f"the tests ran with {path.name}; python -m pip install -c {path} -e . brings its versions"
    return [Check(GROUP, "pins", "warning", f"{first}{more}", cure)]


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def devices() -> list[Check]:
    """The backend of JAX, and a small computation on each of its devices."""
    try:
        found = jax.local_devices()
    except RuntimeError as error:
        first = str(error).splitlines()[0]
        cure = "unset JAX_PLATFORMS, or install JAX for the device: the extras cuda and tpu"
        return [Check(GROUP, "JAX", "failed", first, cure)]
    kinds = sorted({device.device_kind for device in found})
    backend = jax.default_backend()
    values = {"backend": backend, "devices": len(found), "kinds": kinds}
    checks = [Check(GROUP, "JAX", "ok", f"{backend}, {len(found)} x {', '.join(kinds)}", values=values)]
    if backend == "cpu" and (there := [name for name in _ACCELERATORS if Path("/dev", name).exists()]):
        cure = 'python -m pip install "piza-jax[cuda]" or "piza-jax[tpu]", and leave JAX_PLATFORMS unset'
        checks = [Check(GROUP, "JAX", "warning", f"cpu, although /dev/{there[0]} is there", cure, values)]
    return [*checks, _computes(found), _memory(found[0])]


def _computes(found: list[jax.Device]) -> Check:
    start = time.perf_counter()
    matrix = (np.arange(64).reshape(8, 8) % 5).astype(np.float32)  # small whole numbers are exact everywhere
    wrong = []
    for device in found:
        try:
            got = jax.jit(lambda a: a @ a.T + 1)(jax.device_put(matrix, device))
            if not np.array_equal(np.asarray(got), matrix @ matrix.T + 1):
                wrong.append(f"{device} computes wrongly")
        except Exception as error:  # whatever a driver raises
            wrong.append(f"{device}: {(str(error).splitlines() or [type(error).__name__])[0][:200]}")
    if wrong:
        cure = "check the driver and that no other program holds the device"
        return Check(GROUP, "computation", "failed", "; ".join(wrong[:3]), cure)
    seconds = time.perf_counter() - start
    return Check(GROUP, "computation", "ok", f"right on {len(found)} devices, {seconds:.1f} s with compiling")


def device_memory(device: jax.Device) -> tuple[int, int, str]:
    """Bytes in all and free of a device, and whose they are; of the machine where the device has none of its own."""
    stats = device.memory_stats() or {}
    if "bytes_limit" in stats:
        total = int(stats["bytes_limit"])
        return total, total - int(stats.get("bytes_in_use", 0)), f"{device.platform} device"
    page = os.sysconf("SC_PAGE_SIZE")
    total, free = os.sysconf("SC_PHYS_PAGES") * page, os.sysconf("SC_AVPHYS_PAGES") * page
    for line in _lines(Path("/proc/meminfo")):
        if line.startswith("MemAvailable:"):
            free = int(line.split()[1]) * 1024
    limit = next((int(line) for line in _lines(Path("/sys/fs/cgroup/memory.max")) if line.isdigit()), total)
    return min(total, limit), min(free, limit), "machine"


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").split("\n")
    except OSError:
        return []


def _memory(device: jax.Device) -> Check:
    total, free, whose = device_memory(device)
    status, cure = ("ok", "") if free > 10**9 else ("warning", "end what else runs there")
    values = {"total_bytes": total, "free_bytes": free, "of": whose}
    return Check(GROUP, "memory", status, f"{size(free)} free of {size(total)} ({whose})", cure, values)  # type: ignore[arg-type]


def disk(output: str | os.PathLike[str], needed: int = 0) -> list[Check]:
    """Free space at the output folder, or at the nearest folder above it that is there.

    Args:
        output: where a run or data set is to be written.
        needed: bytes that a run's checkpoints take, 0 where the model is not known.

    Raises:
        PizaError: the folder is a file.
    """
    place = Path(output).resolve()
    while not place.exists():
        place = place.parent
    if not place.is_dir():
        raise PizaError(f"{place} is a file; give a folder")
    free = shutil.disk_usage(place).free
    values = {"folder": str(place), "free_bytes": free, "needed_bytes": needed}
    found = f"{size(free)} free at {place}" + (f", a run's checkpoints take {size(needed)}" if needed else "")
    if not os.access(place, os.W_OK):
        return [Check(GROUP, "disk", "failed", f"{place} cannot be written", "give another --output", values)]
    if free < (needed or LITTLE_DISK):
        return [Check(GROUP, "disk", "failed", found, "make room there, or give another --output", values)]
    if free < (1.2 * needed or ENOUGH_DISK):
        return [Check(GROUP, "disk", "warning", found, "little room is left; checkpoint.keep=1 saves some", values)]
    return [Check(GROUP, "disk", "ok", found, values=values)]
