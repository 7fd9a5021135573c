"""Visual prompt tuning (VPT-deep, Jia et al. 2022) of the Swin backbone.

Each block has learnt prompts of its own that stand in every one of its windows, as VPT does for Swin. What a block
makes of its prompts is thrown away before the next one, so only their keys and values are computed.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from piza_jax.models.grounding_dino import GroundingDino

_FIRST_BIAS = -4.0  # a prompt then weighs exp(-4), 2%, of what a place of the window weighs


class WindowPrompts(nnx.Module):
    """Prompts among the (normalised) tokens of each window, with a learnt attention bias for each head.

    VPT gives prompts no bias, which takes attention away from the image at once: 8 prompts have a seventh of it beside
    49 places. The bias, which Swin has for every place of a window, lets them start near zero instead.
    """

    def __init__(self, count: int, features: int, heads: int, *, rngs: nnx.Rngs):
        self.tokens = nnx.Param(nnx.initializers.truncated_normal(1.0)(rngs.params(), (count, features)))
        self.bias = nnx.Param(jnp.full((heads, count), _FIRST_BIAS))

    def __call__(
        self, qkv: nnx.Linear, key: jax.Array, value: jax.Array, bias: jax.Array
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Add the prompts to what the places of a window attend to.

        Args:
            qkv: the block's own projection [C] -> [3 C].
            key: [B, windows, M, heads, d].
            value: [B, windows, M, heads, d].
            bias: [windows, heads, M, M], added to the attention's logits.

        Returns:
            The same with M + prompts keys and values.
        """
        batch, windows, _, heads, depth = key.shape
        count = self.tokens.shape[0]
        projected = qkv(self.tokens[...].astype(key.dtype)).reshape(count, 3, heads, depth)
        shape = (batch, windows, count, heads, depth)
        own_bias = jnp.broadcast_to(self.bias[...][None, :, None], (*bias.shape[:3], count))
        return (
            jnp.concatenate([key, jnp.broadcast_to(projected[:, 1], shape)], axis=2),
            jnp.concatenate([value, jnp.broadcast_to(projected[:, 2], shape)], axis=2),
            jnp.concatenate([bias, own_bias.astype(bias.dtype)], axis=3),
        )


def attach(detector: GroundingDino, prompts: int, *, rngs: nnx.Rngs) -> None:
    """Give each block of the backbone ``prompts`` prompts."""
    for stage in detector.backbone.stages:
        for block in stage.blocks:
            attention = block.attention
            attention.prompts = WindowPrompts(prompts, attention.qkv.in_features, attention.heads, rngs=rngs)
