"""The zoom condition for methods that have no module in the enhancer: added where PIZA-Adapter+ adds it."""

import jax
from flax import nnx

from piza_jax.models.grounding_dino import GroundingDino


class AddCondition(nnx.Module):
    """Stands in the place of an adapter and has no parameters: adds the condition and nothing else."""

    def __call__(self, x: jax.Array, condition: jax.Array | None) -> jax.Array:
        """[B, N, D] and a condition [B, D] or None -> [B, N, D]."""
        return x if condition is None else x + condition[:, None].astype(x.dtype)


def attach(detector: GroundingDino) -> None:
    """Add the condition in both adapter places of each image layer of the enhancer (the shared form of Adapter+)."""
    for layer in detector.enhancer.layers:
        layer.image.adapter1, layer.image.adapter2 = AddCondition(), AddCondition()
