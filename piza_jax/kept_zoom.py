"""Zooms that ``piza ground`` keeps between starts beside its compiled programs, so that it traces a model once.

What is kept is an export (``piza_jax.exported``), which needs no model code: a later start only reads it. It is found
by everything that it depends on, so that it is never used for anything else, and the last few are kept.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax

from piza_jax import compile_cache
from piza_jax.data.pairs import canvas_side
from piza_jax.errors import PizaError
from piza_jax.exported.files import WEIGHTS
from piza_jax.exported.zoom import ExportedZoom, load_exported
from piza_jax.shipped import resolve

if TYPE_CHECKING:
    from piza_jax.piza.grounding import Grounder

PACKAGE = Path(__file__).parent
FOLDER = "zooms"  # in that of the compiled programs
MOST = 8  # zooms that are kept
LARGEST = 2**28  # bytes of weights: reading larger ones twice costs more than tracing saves
# Of a CPU's program for one search with a small model most of the time is the compiler's, so it does the least; larger
# models (bytes of weights) search for longer than they compile.
SMALL = 2**25
HASTY = {"xla_backend_optimization_level": 0, "xla_cpu_parallel_codegen_split_count": 4}
if jax.__version_info__ < (0, 11):  # where there is a choice, the older code generator is the faster one
    HASTY["xla_cpu_use_fusion_emitters"] = False


def place_of(options: Mapping[str, Any], photo_hw: tuple[int, int]) -> Path | None:
    """The folder in which the zoom of some options is kept, or will be.

    Args:
        options: all that decides how it zooms, ready for JSON; "checkpoint", "base", "tokenizer" and "zoom" name files
            or folders, whose sizes and times count too.
        photo_hw: height and width of the photo.

    Returns:
        The folder; None where programs are not kept, or weights are large, or there is nothing by a name.
    """
    cache = compile_cache.folder()
    if cache is None:
        return None
    try:
        sources = {
            name: resolve(options[name]) for name in ("checkpoint", "base", "tokenizer", "zoom") if options[name]
        }
    except PizaError:
        return None  # who opens it will say so
    weights = [_stamps(sources[name]) for name in ("checkpoint", "base") if name in sources]
    if sum(size for stamps in weights for _, size, _ in stamps) > LARGEST:
        return None
    known = {
        "options": dict(options),
        "files": {name: (str(path.absolute()), _stamps(path)) for name, path in sources.items()},
        "code": _stamps(PACKAGE, "*.py"),
        "jax": (jax.__version__, jax.default_backend(), jax.devices()[0].device_kind),
        "settings": sorted((name, value) for name, value in os.environ.items() if name.startswith("JAX_")),
        "canvas": [canvas_side(side) for side in photo_hw],
    }
    digest = hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()
    return cache / FOLDER / digest[:32]


def open_kept(place: Path) -> ExportedZoom | None:
    """The zoom that is kept there; None if there is none, and a damaged one goes."""
    if not place.is_dir():
        return None
    try:
        zoom = _load(place)
        os.utime(place)  # which ones were used last
        return zoom
    except (PizaError, OSError):
        shutil.rmtree(place, ignore_errors=True)
        return None


def keep(
    grounder: "Grounder", place: Path, photo_hw: tuple[int, int], tell: Callable[[str], None]
) -> ExportedZoom | None:
    """Keep a grounder's zoom and open it.

    Args:
        grounder: what zooms.
        place: where to, as place_of gave it.
        photo_hw: height and width of the photo.
        tell: is told why it could not be kept.

    Returns:
        The zoom as the next start will have it; None if it could not be kept, which is no error.
    """
    from piza_jax.export_zoom import export_zoom

    platform = jax.export.default_export_platform()
    try:
        export_zoom(grounder, place, platforms=(platform,), photo_hw=[photo_hw], single=True)
        kept = sorted(place.parent.iterdir(), key=lambda path: path.stat().st_mtime, reverse=True)
        for old in kept[MOST:]:
            shutil.rmtree(old, ignore_errors=True)
        return _load(place)
    except Exception as error:  # jax.export has many; what cannot be kept can be used all the same
        tell(f"this zoom is not kept for the next start: {error}")
        return None


def _load(place: Path) -> ExportedZoom:
    hasty = jax.default_backend() == "cpu" and (place / WEIGHTS).stat().st_size <= SMALL
    return load_exported(place, compiler_options=HASTY if hasty else None)


def _stamps(path: Path, pattern: str = "*") -> list[tuple[str, int, int]]:
    """Name, size and time of a file, or of those below a folder that match."""
    files = [path] if path.is_file() else sorted(file for file in path.rglob(pattern) if file.is_file())
    return [
        (str(file.relative_to(path.parent)), stat.st_size, stat.st_mtime_ns) for file in files for stat in [file.stat()]
    ]
