"""Sub-sentence masks and positions: a token sees only the phrase between two delimiters that it stands in."""

from typing import NamedTuple

import jax
import jax.numpy as jnp


class TextInputs(NamedTuple):
    """Token arrays of a batch of sentences; every mask is True = valid."""

    input_ids: jax.Array  # int32 [B, L]
    token_mask: jax.Array  # bool [B, L]
    self_mask: jax.Array  # bool [B, L, L], row may attend to column
    position_ids: jax.Array  # int32 [B, L], restarting in each sub-sentence


class TextFeatures(NamedTuple):
    """What the detector needs of a batch of sentences, computed once for each expression."""

    hidden: jax.Array  # [B, L, C] BERT features
    token_mask: jax.Array  # bool [B, L]
    self_mask: jax.Array  # bool [B, L, L]
    position_ids: jax.Array  # int32 [B, L]


def text_inputs(input_ids: jax.Array, token_mask: jax.Array, delimiter_ids: tuple[int, ...]) -> TextInputs:
    """Masks and positions of GroundingDINO's sub-sentence form (Liu et al. 2023, section 3.4).

    A delimiter ([CLS], [SEP], full stop, question mark) closes the block that it stands in. Padding tokens see only
    themselves. transformers does the same but for words between the last stop and a [SEP] in the last column, which it
    puts into no block; the tokenizer's closing full stop leaves no such words.

    Args:
        input_ids: int [B, L].
        token_mask: bool [B, L], True = token.
        delimiter_ids: vocabulary ids of the delimiters.
    """
    length = input_ids.shape[1]
    index = jnp.arange(length, dtype=jnp.int32)
    delimiter = jnp.isin(input_ids, jnp.array(delimiter_ids)) & token_mask
    last = jax.lax.cummax(jnp.where(delimiter, index, -1), axis=1)
    start = jnp.concatenate([jnp.full_like(last[:, :1], -1), last[:, :-1]], axis=1) + 1  # first token of the block
    same = (start[:, :, None] == start[:, None, :]) & token_mask[:, :, None] & token_mask[:, None, :]
    position_ids = jnp.where(token_mask, index - start, 0)
    return TextInputs(input_ids, token_mask, same | jnp.eye(length, dtype=bool), position_ids)


def expression_tokens(token_mask: jax.Array) -> jax.Array:
    """Tokens that name the target: all but [CLS] and the closing full stop and [SEP]. bool [B, L] -> bool [B, L]."""
    index = jnp.arange(token_mask.shape[1])
    count = jnp.sum(token_mask, axis=1, keepdims=True)
    return (index >= 1) & (index < count - 2)
