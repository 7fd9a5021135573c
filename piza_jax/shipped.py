"""Weights that come with the package, small models that know the drawn streets of SOREC-mini alone."""

import os
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
