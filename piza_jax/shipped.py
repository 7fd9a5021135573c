"""Weights by name: files, the hub's, and those that come with the package, which know SOREC-mini's streets alone."""

import os
import re
import sys
from pathlib import Path

from piza_jax.errors import PizaError

MINI, MINI_BASE = "piza-mini", "piza-mini-base"
_WEIGHTS = Path(__file__).parent / "weights"
_FOLDERS = {MINI: "piza_mini", MINI_BASE: "piza_mini_base"}
_BASES = {MINI: MINI_BASE}


def folder_of(name: str | os.PathLike[str]) -> Path | None:
    """The folder of weights that ship under a name, or None if none do."""
    folder = _WEIGHTS / _FOLDERS.get(os.fspath(name), "none")
    return folder if folder.is_dir() else None


def base_of(name: str | os.PathLike[str]) -> str | None:
    """The name of the weights that shipped ones are laid over, or None if there are none."""
    return _BASES.get(os.fspath(name))


def resolve(path: str | os.PathLike[str]) -> Path:
    """A path as it is, the folder of shipped weights, or the local copy of a hub name such as owner/model."""
    place, name = Path(path), os.fspath(path)
    if place.exists():
        return place
    if ours := folder_of(name):
        return ours
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name) or place.parent.is_dir():
        raise PizaError(f"there is nothing at {name}; give a file, a folder, a hub name such as owner/model, or {MINI}")
    from huggingface_hub import snapshot_download

    wanted = ["*.json", "*.safetensors", "vocab.txt"]
    try:
        return Path(snapshot_download(name, allow_patterns=wanted))
    except Exception as error:  # the hub's many errors: no such model, no network, no rights
        first = str(error).strip().splitlines()[:1]
        raise PizaError(
            f"there is no folder {name}, and the hub gave no model of that name ({type(error).__name__}: "
            f"{''.join(first)[:200]}); give a local path, or fetch the model on a machine with network"
        ) from error


def or_mini(checkpoint: str | None) -> str:
    """The checkpoint of a command, or piza-mini where none is given, which standard error then tells.

    Raises:
        PizaError: none is given, and the package holds no piza-mini.
    """
    if checkpoint:
        return checkpoint
    if folder_of(MINI) is None:
        raise PizaError("say which model to use: --checkpoint=MODEL")
    print(
        f"no --checkpoint: {MINI} looks, which ships with the package. It knows drawn streets (SOREC-mini) only and "
        "finds nothing of use in a photo of the real world",
        file=sys.stderr,
    )
    return MINI
