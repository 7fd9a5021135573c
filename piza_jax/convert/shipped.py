"""The models that come with the package: piza-mini, which knows drawn street scenes and nothing else."""

from pathlib import Path

import piza_jax

MINI, MINI_BASE = "piza-mini", "piza-mini-base"
# Name -> folder in the package, and the base that it is laid over.
_MODELS: dict[str, tuple[str, str | None]] = {MINI: ("piza_mini", MINI_BASE), MINI_BASE: ("piza_mini_base", None)}

WARNING = (
    f"{MINI} knows drawn street scenes only, as python -m tfds_sorec.build_mini makes them; for photos give a model"
)


def folder_of(name: str) -> Path | None:
    """Where a shipped model lies; None for any other name."""
    if name not in _MODELS:
        return None
    return Path(piza_jax.__file__).parent / "weights" / _MODELS[name][0]


def base_of(name: str) -> str | None:
    """The name of the shipped base of a shipped adapter; None for any other name."""
    return _MODELS[name][1] if name in _MODELS else None
