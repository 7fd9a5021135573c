"""The models that come with the package: piza-mini, which knows drawn street scenes and nothing else."""

from pathlib import Path

MINI, MINI_BASE = "piza-mini", "piza-mini-base"
# Name -> folder in the package, and the base that it is laid over.
_MODELS: dict[str, tuple[str, str | None]] = {MINI: ("piza_mini", MINI_BASE), MINI_BASE: ("piza_mini_base", None)}

WARNING = (
    f"the shipped {MINI} is used, which knows only drawn street scenes, such as python -m tfds_sorec.build_mini makes; "
    "name a model for photos"
)


def folder_of(name: str) -> Path | None:
    """Where a shipped model lies; None for any other name."""
    if name not in _MODELS:
        return None
    return Path(__file__).parent.parent / "weights" / _MODELS[name][0]


def base_of(name: str) -> str | None:
    """The name of the shipped base of a shipped adapter; None for any other name."""
    return _MODELS[name][1] if name in _MODELS else None
