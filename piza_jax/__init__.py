"""PIZA on GroundingDINO in JAX: zoom into a photo until the thing that a sentence names fills a tight box."""

from typing import TYPE_CHECKING, Any

from piza_jax.errors import PizaError

if TYPE_CHECKING:
    from piza_jax.exported import ExportedZoom, load_exported
    from piza_jax.grounder import Grounder, PhraseDetections, load
    from piza_jax.results import Alternative, Grounding, Step

__all__ = [
    "Alternative",
    "ExportedZoom",
    "Grounder",
    "Grounding",
    "PhraseDetections",
    "PizaError",
    "Step",
    "load",
    "load_exported",
]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Import the model code only when it is asked for: ``piza_jax.errors`` and the data code need none of it."""
    if name in ("ExportedZoom", "load_exported"):
        from piza_jax import exported

        return getattr(exported, name)
    if name in ("Alternative", "Grounding", "Step"):
        from piza_jax import results

        return getattr(results, name)
    if name in __all__:
        from piza_jax import grounder

        return getattr(grounder, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
