"""GroundingDINO (Liu et al. 2023) in the MM-GroundingDINO form (Zhao et al. 2024)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from piza_jax.models.bert import Bert
from piza_jax.models.config import DetectorConfig
from piza_jax.models.decoder import Decoder, box_head
from piza_jax.models.denoising import Denoising, DenoisingQueries
from piza_jax.models.enhancer import Enhancer
from piza_jax.models.heads import ContrastiveHead
from piza_jax.models.layers import layer_norm, linear
from piza_jax.models.neck import Neck
from piza_jax.models.pyramid import Pyramid, build_pyramid, proposals
from piza_jax.models.swin import Swin
from piza_jax.models.text import TextFeatures, text_inputs

__all__ = ["Cells", "Detections", "DetectorConfig", "Encoded", "GroundingDino"]


class Encoded(NamedTuple):
    """Enhanced features of a batch."""

    memory: jax.Array  # [B, N, D]
    text: jax.Array  # [B, L, D]
    pyramid: Pyramid


class Cells(NamedTuple):
    """What query selection chooses from: every cell of every level."""

    logits: jax.Array  # float32 [B, N, L]
    centres: jax.Array  # float32 [B, N, 2], (x, y) in 0..1 of the valid content
    usable: jax.Array  # bool [B, N]


class Detections(NamedTuple):
    """Predictions; boxes are cxcywh in 0..1 of the valid content, logits are -inf on padding tokens."""

    logits: jax.Array  # float32 [layers, B, Q, L]
    boxes: jax.Array  # float32 [layers, B, Q, 4]
    selected_logits: jax.Array  # float32 [B, Q, L], language-guided query selection, best first
    selected_boxes: jax.Array  # float32 [B, Q, 4]
    denoising_logits: jax.Array | None = None  # float32 [layers, B, N, L]
    denoising_boxes: jax.Array | None = None  # float32 [layers, B, N, 4]
    cells: Cells | None = None


class GroundingDino(nnx.Module):
    """Boxes for a sentence. ``encode_text`` once for each sentence, then ``encode`` and ``decode`` for each view.

    ``text_condition`` is a place for a module that makes of the zoom condition [B, D] what is added to all tokens of a
    sentence [B, C]; it comes after BERT, which the views of one photo share.
    """

    def __init__(self, config: DetectorConfig, *, rngs: nnx.Rngs):
        dtype = jnp.dtype(config.dtype)
        self.config = config
        self.backbone = Swin(config.swin, dtype=dtype, remat=config.remat, rngs=rngs)
        self.neck = Neck(config, dtype=dtype, rngs=rngs)
        self.bert = Bert(config.bert, dtype=dtype, remat=config.remat, scan=config.scan_layers, rngs=rngs)
        self.text_condition: nnx.Module | None = nnx.data(None)
        self.text_projection = linear(config.bert.dim, config.dim, dtype=dtype, rngs=rngs)
        self.level_embedding = nnx.Param(jax.random.normal(rngs.params(), (config.levels, config.dim)))
        self.enhancer = Enhancer(config, dtype=dtype, rngs=rngs)
        self.memory_projection = linear(config.dim, config.dim, dtype=dtype, rngs=rngs)
        self.memory_norm = layer_norm(config.dim, dtype=dtype, rngs=rngs)
        self.selection_class_head = ContrastiveHead(config)
        self.selection_box_head = box_head(config.dim, rngs)
        self.query_embedding = nnx.Embed(config.queries, config.dim, rngs=rngs)
        self.denoising = DenoisingQueries(config, rngs=rngs) if config.denoising_queries else nnx.data(None)
        self.decoder = Decoder(config, dtype=dtype, rngs=rngs)

    def encode_text(self, input_ids: jax.Array, token_mask: jax.Array) -> TextFeatures:
        """Run BERT on token ids int [B, L] with their mask bool [B, L] (True = token)."""
        text = text_inputs(input_ids, token_mask, self.config.delimiter_ids)
        hidden = self.bert(text.input_ids, text.position_ids, text.self_mask)
        return TextFeatures(hidden, text.token_mask, text.self_mask, text.position_ids)

    def features(self, images: jax.Array) -> list[jax.Array]:
        """Normalised images float32 [B, H, W, 3] -> feature levels [B, h, w, D], finest first."""
        return self.neck(self.backbone(images))

    def flatten(
        self, levels: list[jax.Array], canvas_hw: tuple[int, int], valid_hw: jax.Array
    ) -> tuple[jax.Array, Pyramid]:
        """Feature levels [B, h, w, D] of a canvas -> one memory [B, N, D] and its geometry."""
        shapes_hw = tuple((level.shape[1], level.shape[2]) for level in levels)
        temperature = self.config.position_temperature
        pyramid = build_pyramid(valid_hw, canvas_hw, shapes_hw, self.level_embedding[...], temperature)
        return jnp.concatenate([level.reshape(level.shape[0], -1, level.shape[3]) for level in levels], axis=1), pyramid

    def encode(
        self, images: jax.Array, valid_hw: jax.Array, text: TextFeatures, condition: jax.Array | None = None
    ) -> Encoded:
        """Backbone, neck and feature enhancer.

        Args:
            images: float32 [B, H, W, 3] normalised, zeros outside the content.
            valid_hw: int [B, 2] height and width of the content in the top left corner.
            text: from ``encode_text``.
            condition: zoom condition [B, D] of the image-side adapters and of ``text_condition``, or None.
        """
        memory, pyramid = self.flatten(self.features(images), (images.shape[1], images.shape[2]), valid_hw)
        hidden = text.hidden
        if self.text_condition is not None and condition is not None:
            hidden = hidden + self.text_condition(condition)[:, None].astype(hidden.dtype)
        memory, enhanced = self.enhancer(
            memory,
            self.text_projection(hidden),
            pyramid,
            text.token_mask,
            text.self_mask,
            text.position_ids,
            condition,
        )
        return Encoded(memory, enhanced, pyramid)

    def score_cells(self, encoded: Encoded, token_mask: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """What query selection chooses from: memory [B, N, D] and logits [B, N, L] of each cell, and its first box.

        The box is cxcywh before the sigmoid [B, N, 4]; unusable cells have an infinite one, which saturates and carries
        no gradient.
        """
        boxes_cxcywh, usable = proposals(encoded.pyramid)
        memory = jnp.where(usable[..., None], encoded.memory, 0)
        memory = self.memory_norm(self.memory_projection(memory))
        logits = self.selection_class_head(memory, encoded.text, token_mask)
        safe = jnp.where(usable[..., None], boxes_cxcywh, 0.5)
        return memory, logits, jnp.where(usable[..., None], jnp.log(safe / (1.0 - safe)), jnp.inf)

    def select(self, encoded: Encoded, token_mask: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array, Cells]:
        """Language-guided query selection: the cells whose best token scores highest.

        Returns:
            Logits [B, Q, L], boxes cxcywh [B, Q, 4] in 0..1, the same boxes before the sigmoid, and all cells.
        """
        memory, logits, base = self.score_cells(encoded, token_mask)
        _, index = jax.lax.top_k(jnp.max(logits, axis=-1), self.config.queries)
        chosen = jnp.take_along_axis(memory, index[..., None], axis=1)
        unact = self.selection_box_head(chosen.astype(jnp.float32)) + jnp.take_along_axis(base, index[..., None], 1)
        centres, usable = proposals(encoded.pyramid)
        cells = Cells(logits, centres[..., :2], usable)
        return jnp.take_along_axis(logits, index[..., None], axis=1), jax.nn.sigmoid(unact), unact, cells

    def decode(self, encoded: Encoded, text: TextFeatures, denoising: Denoising | None = None) -> Detections:
        """Query selection and decoder, with denoising queries in front of the selected ones where given."""
        selected_logits, selected_boxes, unact, cells = self.select(encoded, text.token_mask)
        batch = unact.shape[0]
        query = jnp.broadcast_to(self.query_embedding.embedding[...], (batch, *self.query_embedding.embedding.shape))
        unact = jax.lax.stop_gradient(unact)
        mask, extra = None, 0
        if denoising is not None:
            query = jnp.concatenate([denoising.content, query], axis=1)
            unact = jnp.concatenate([denoising.boxes_unact, unact], axis=1)
            mask, extra = denoising.query_mask, denoising.content.shape[1]
        out = self.decoder(
            query.astype(encoded.memory.dtype),
            jax.nn.sigmoid(unact),
            mask,
            encoded.text,
            text.token_mask,
            encoded.memory,
            encoded.pyramid,
        )
        return Detections(
            out.logits[:, :, extra:],
            out.boxes[:, :, extra:],
            selected_logits,
            selected_boxes,
            out.logits[:, :, :extra] if extra else None,
            out.boxes[:, :, :extra] if extra else None,
            cells,
        )

    def __call__(
        self,
        images: jax.Array,
        valid_hw: jax.Array,
        text: TextFeatures,
        condition: jax.Array | None = None,
        denoising: Denoising | None = None,
    ) -> Detections:
        """``encode`` then ``decode``."""
        return self.decode(self.encode(images, valid_hw, text, condition), text, denoising)
