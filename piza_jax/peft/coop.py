"""CoOp (Zhou et al. 2022): learnt context tokens among the words of the sentence, and PIZA's zoom condition for them.

BERT has to run once for each expression, and a zoom looks several times. So the zoom condition does not enter the
context in front of BERT; it becomes a shift of BERT's output, by the small network with which CoCoOp (Zhou et al. 2022)
turns a condition into a shift of its context tokens.
"""

import math

import jax
import jax.numpy as jnp
from flax import nnx

from piza_jax.models.grounding_dino import GroundingDino
from piza_jax.models.layers import linear


class Context(nnx.Module):
    """Learnt vectors in the place of word embeddings; BERT takes them in with the words and gives back the words alone.

    Attention knows places only by position ids and masks, so the context may stand first in the arrays, in front of
    [CLS]. The words keep their own position ids, and each sees what it saw. All words of a phrase also see the context
    and the context sees them; a delimiter that stands alone, such as [CLS], still sees only itself.

    The context as a whole weighs as much as one word: log(tokens) is taken off the logits of the attention to it.
    Sixteen tokens of full weight would take two fifths of the attention of a sentence of 25 words at once.
    """

    def __init__(self, tokens: int, features: int, *, rngs: nnx.Rngs):
        self.tokens = nnx.Param(0.02 * jax.random.normal(rngs.params(), (tokens, features)))

    def insert(
        self, words: jax.Array, position_ids: jax.Array, mask: jax.Array
    ) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
        """Word embeddings [B, L, C], position ids int [B, L] and mask bool [B, L, L] -> the same for all M tokens.

        The fourth is float32 [M], to be added to the logits of the attention to each token.
        """
        count, (batch, length, features) = self.tokens.shape[0], words.shape
        context = jnp.broadcast_to(self.tokens[...].astype(words.dtype), (batch, count, features))
        places = jnp.broadcast_to(jnp.arange(count, dtype=position_ids.dtype), (batch, count))
        phrase = jnp.sum(mask, axis=2) > 1  # [B, L], stands with others; padding and lone delimiters do not
        top = jnp.concatenate([jnp.ones((batch, count), bool), phrase], axis=1)  # what a context token sees
        bottom = jnp.concatenate([jnp.broadcast_to(phrase[:, :, None], (batch, length, count)), mask], axis=2)
        top = jnp.broadcast_to(top[:, None], (batch, count, count + length))
        return (
            jnp.concatenate([context, words], axis=1),
            jnp.concatenate([places, position_ids], axis=1),
            jnp.concatenate([top, bottom], axis=1),
            jnp.where(jnp.arange(count + length) < count, -math.log(count), 0.0),
        )

    def remove(self, x: jax.Array) -> jax.Array:
        """Features of all tokens [B, M, C] -> those of the words [B, L, C]."""
        return x[:, self.tokens.shape[0] :]


class TextShift(nnx.Module):
    """From the zoom condition to a vector that is added to all text features; starts at zero."""

    def __init__(self, inputs: int, hidden: int, outputs: int, *, dtype: jnp.dtype, rngs: nnx.Rngs):
        self.hidden = linear(inputs, hidden, dtype=dtype, rngs=rngs)
        self.out = nnx.Linear(hidden, outputs, kernel_init=nnx.initializers.zeros, dtype=dtype, rngs=rngs)

    def __call__(self, condition: jax.Array) -> jax.Array:
        """[B, inputs] -> [B, outputs]."""
        return self.out(jax.nn.silu(self.hidden(condition)))


def attach(detector: GroundingDino, tokens: int, condition_hidden: int | None, *, rngs: nnx.Rngs) -> None:
    """Put ``tokens`` context tokens into BERT, and with ``condition_hidden`` a ``TextShift`` of that width after it."""
    config = detector.config
    detector.bert.context = Context(tokens, config.bert.dim, rngs=rngs)
    if condition_hidden is not None:
        dtype = jnp.dtype(config.dtype)
        detector.text_condition = TextShift(config.dim, condition_hidden, config.bert.dim, dtype=dtype, rngs=rngs)
