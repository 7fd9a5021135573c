"""BERT encoder (Devlin et al. 2019), without the pooler, under a full attention mask for each pair of tokens."""

from typing import Protocol

import jax
import jax.numpy as jnp
from flax import nnx

from piza_jax.models.layers import Attention, layer_norm, linear, run_layers

_EPSILON = 1e-12


class BertLayer(nnx.Module):
    """Post-norm self-attention and GELU feed-forward."""

    def __init__(self, config, *, dtype: jnp.dtype, rngs: nnx.Rngs):
        self.attention = Attention(config.dim, config.heads, dtype=dtype, rngs=rngs)
        self.attention_norm = layer_norm(config.dim, epsilon=_EPSILON, dtype=dtype, rngs=rngs)
        self.up = linear(config.dim, config.hidden, dtype=dtype, rngs=rngs)
        self.down = linear(config.hidden, config.dim, dtype=dtype, rngs=rngs)
        self.output_norm = layer_norm(config.dim, epsilon=_EPSILON, dtype=dtype, rngs=rngs)

    def __call__(self, x: jax.Array, mask: jax.Array, bias: jax.Array | None = None) -> jax.Array:
        """[B, L, C], bool [B, 1, L, L] and what is added to the attention's logits, [1, 1, 1, L] -> [B, L, C]."""
        x = self.attention_norm(x + self.attention(x, x, x, mask, bias))
        return self.output_norm(x + self.down(jax.nn.gelu(self.up(x), approximate=False)))


class TokenContext(Protocol):
    """What may stand in ``Bert.context``."""

    def insert(
        self, words: jax.Array, position_ids: jax.Array, mask: jax.Array
    ) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
        """Word embeddings [B, L, C], position ids int [B, L] and mask bool [B, L, L] -> the same for all M tokens.

        The fourth is [M], added to the logits of the attention to each token.
        """

    def remove(self, x: jax.Array) -> jax.Array:
        """Features of all tokens -> those of the words [B, L, C]."""


class Bert(nnx.Module):
    """Token features of the last layer.

    ``context`` is a place for a module that puts tokens of its own among the words and takes them out again after the
    last layer.
    """

    def __init__(self, config, *, dtype: jnp.dtype, remat: str, scan: bool, rngs: nnx.Rngs):
        """``config`` is a ``BertConfig`` (models/config.py)."""
        self.remat, self.scan = remat, scan
        self.context: TokenContext | None = nnx.data(None)
        self.word_embeddings = nnx.Embed(config.vocab_size, config.dim, dtype=dtype, rngs=rngs)
        self.position_embeddings = nnx.Embed(config.max_positions, config.dim, dtype=dtype, rngs=rngs)
        self.type_embeddings = nnx.Embed(2, config.dim, dtype=dtype, rngs=rngs)
        self.embedding_norm = layer_norm(config.dim, epsilon=_EPSILON, dtype=dtype, rngs=rngs)
        self.layers = nnx.List([BertLayer(config, dtype=dtype, rngs=rngs) for _ in range(config.layers)])

    def __call__(self, input_ids: jax.Array, position_ids: jax.Array, mask: jax.Array) -> jax.Array:
        """Encode.

        Args:
            input_ids: int [B, L].
            position_ids: int [B, L].
            mask: bool [B, L, L], True = may attend.

        Returns:
            [B, L, C].
        """
        words, bias = self.word_embeddings(input_ids), None
        if self.context is not None:
            words, position_ids, mask, column_bias = self.context.insert(words, position_ids, mask)
            bias = column_bias.astype(words.dtype)[None, None, None]
        x = words + self.position_embeddings(position_ids)
        x = self.embedding_norm(x + self.type_embeddings(jnp.zeros_like(position_ids)))
        x = run_layers(BertLayer.__call__, self.layers, x, mask[:, None], bias, remat=self.remat, scan=self.scan)
        return x if self.context is None else self.context.remove(x)
