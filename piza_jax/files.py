"""Folders that appear whole or not at all."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from safetensors import SafetensorError

from piza_jax.errors import PizaError


def check_new(folder: str | os.PathLike[str]) -> None:
    """PizaError where a folder is in use; to be asked before the work, too."""
    target = Path(folder)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise PizaError(f"{target} exists; give a new folder")


@contextlib.contextmanager
def new_folder(folder: str | os.PathLike[str]) -> Iterator[Path]:
    """A place to write into, which appears under the folder's name when everything in it is written, or not at all.

    Raises:
        PizaError: the folder is in use, or something in it cannot be written.
    """
    check_new(folder)
    target = Path(folder)
    place = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        place = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
        yield place
        place.chmod(0o755)
        for path in place.iterdir():
            path.chmod(0o644)  # safetensors writes for the owner alone
        os.replace(place, target)
    except (OSError, SafetensorError) as error:
        raise PizaError(f"cannot write {target}: {error}; make room, or give another folder") from error
    finally:
        if place is not None:
            shutil.rmtree(place, ignore_errors=True)
