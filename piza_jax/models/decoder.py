"""Cross-modality decoder with iterative box refinement (Liu et al. 2023, section 3.3; DINO's look-forward-twice)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from piza_jax.models.config import DetectorConfig
from piza_jax.models.heads import ContrastiveHead
from piza_jax.models.layers import MLP, Attention, DeformableAttention, layer_norm, rematerialised
from piza_jax.models.pyramid import Pyramid
from piza_jax.ops.boxes import inverse_sigmoid
from piza_jax.ops.encodings import box_encoding


class DecoderLayer(nnx.Module):
    """Self-attention, text cross-attention, deformable image cross-attention, feed-forward; all post-norm."""

    def __init__(self, config: DetectorConfig, *, dtype: jnp.dtype, rngs: nnx.Rngs):
        dim, heads = config.dim, config.heads
        self.self_attention = Attention(dim, heads, dtype=dtype, rngs=rngs)
        self.norm1 = layer_norm(dim, dtype=dtype, rngs=rngs)
        self.text_attention = Attention(dim, heads, dtype=dtype, rngs=rngs)
        self.norm2 = layer_norm(dim, dtype=dtype, rngs=rngs)
        self.image_attention = DeformableAttention(dim, heads, config.levels, config.points, dtype=dtype, rngs=rngs)
        self.norm3 = layer_norm(dim, dtype=dtype, rngs=rngs)
        self.ffn = MLP((dim, config.hidden, dim), dtype=dtype, rngs=rngs)
        self.norm4 = layer_norm(dim, dtype=dtype, rngs=rngs)

    def __call__(
        self,
        query: jax.Array,
        position: jax.Array,
        query_mask: jax.Array | None,
        text: jax.Array,
        token_mask: jax.Array,
        memory: jax.Array,
        pyramid: Pyramid,
        references: jax.Array,
    ) -> jax.Array:
        """[B, Q, D] -> [B, Q, D]; ``query_mask`` bool [Q, Q], ``references`` cxcywh [B, Q, levels, 4]."""
        placed = query + position
        mask = None if query_mask is None else query_mask[None, None]
        query = self.norm1(query + self.self_attention(placed, placed, query, mask))
        query = self.norm2(query + self.text_attention(query + position, text, text, token_mask[:, None, None]))
        attended = self.image_attention(query + position, memory, pyramid.mask, references, pyramid.shapes_hw)
        query = self.norm3(query + attended)
        return self.norm4(query + self.ffn(query))


class DecoderOutput(NamedTuple):
    """Predictions of every layer; boxes are cxcywh in 0..1 of the valid content."""

    logits: jax.Array  # float32 [layers, B, Q, L]
    boxes: jax.Array  # float32 [layers, B, Q, 4]


class Decoder(nnx.Module):
    """The stack of decoder layers with the heads that refine and read its queries."""

    def __init__(self, config: DetectorConfig, *, dtype: jnp.dtype, rngs: nnx.Rngs):
        dim = config.dim
        self.dim, self.remat, self.refine_eps, self.output_eps = dim, config.remat, config.refine_eps, config.output_eps
        self.layers = nnx.List([DecoderLayer(config, dtype=dtype, rngs=rngs) for _ in range(config.decoder_layers)])
        self.position_head = MLP((2 * dim, dim, dim), dtype=dtype, rngs=rngs)
        self.norm = layer_norm(dim, dtype=dtype, rngs=rngs)
        count = 1 if config.shared_box_head else config.decoder_layers
        self.box_heads = nnx.List([box_head(dim, rngs) for _ in range(count)])
        heads = 1 if config.shared_class_head or not config.class_bias else config.decoder_layers
        self.class_heads = nnx.List([ContrastiveHead(config) for _ in range(heads)])

    def __call__(
        self,
        query: jax.Array,
        references: jax.Array,
        query_mask: jax.Array | None,
        text: jax.Array,
        token_mask: jax.Array,
        memory: jax.Array,
        pyramid: Pyramid,
    ) -> DecoderOutput:
        """Refine.

        Args:
            query: [B, Q, D] content.
            references: float32 [B, Q, 4] cxcywh in 0..1 of the valid content.
            query_mask: bool [Q, Q], True = may attend, or None.
            text: [B, L, D] enhanced text.
            token_mask: bool [B, L].
            memory: [B, N, D] enhanced image.
            pyramid: geometry of the image levels.
        """
        ratios = jnp.tile(pyramid.valid_ratios, (1, 1, 2))[:, None]  # [B, 1, levels, 4]
        run = rematerialised(DecoderLayer.__call__, self.remat)
        logits, boxes = [], []
        previous = references
        for index, layer in enumerate(self.layers):
            scaled = references[:, :, None] * ratios  # [B, Q, levels, 4]
            position = self.position_head(box_encoding(scaled[:, :, 0], self.dim // 2).astype(query.dtype))
            query = run(layer, query, position, query_mask, text, token_mask, memory, pyramid, scaled)
            head = self.box_heads[min(index, len(self.box_heads) - 1)]
            normed = self.norm(query)
            class_head = self.class_heads[min(index, len(self.class_heads) - 1)]
            logits.append(class_head(normed, text, token_mask))
            boxes.append(jax.nn.sigmoid(head(normed.astype(jnp.float32)) + inverse_sigmoid(previous, self.output_eps)))
            # The next layer starts from a detached box, yet its loss also reaches this refinement.
            step = head(query.astype(jnp.float32))
            previous = jax.nn.sigmoid(step + inverse_sigmoid(references, self.refine_eps))
            references = jax.lax.stop_gradient(previous)
        return DecoderOutput(jnp.stack(logits), jnp.stack(boxes))


def box_head(dim: int, rngs: nnx.Rngs) -> MLP:
    """Three float32 layers to a box offset; the last starts at zero, so that the first boxes are the references."""
    head = MLP((dim, dim, dim, 4), dtype=jnp.float32, rngs=rngs)
    last = head.layers[-1]
    last.kernel[...] = jnp.zeros_like(last.kernel[...])
    return head
