"""Feature enhancer: bi-directional fusion, text self-attention and deformable image self-attention, layer by layer."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from piza_jax.models.config import DetectorConfig
from piza_jax.models.layers import MLP, Attention, DeformableAttention, affine, layer_norm, linear, run_layers
from piza_jax.models.pyramid import Pyramid
from piza_jax.ops.encodings import sine_encoding


class BiAttention(nnx.Module):
    """One score matrix read both ways: image cells gather from tokens, and tokens from image cells.

    Image cells are many and tokens few. Where that is cheaper, what is linear in a cell is applied to the tokens
    instead: (x W) k = x (W k), p (v W) = (p v) W, and so on, the same up to rounding without [B, N, fusion_dim].
    """

    def __init__(self, config: DetectorConfig, *, dtype: jnp.dtype, rngs: nnx.Rngs):
        self.heads, self.mask_text = config.fusion_heads, config.mask_fusion_text
        dim, inner = config.dim, config.fusion_dim
        self.image_query = linear(dim, inner, dtype=dtype, rngs=rngs)
        self.text_query = linear(dim, inner, dtype=dtype, rngs=rngs)
        self.image_value = linear(dim, inner, dtype=dtype, rngs=rngs)
        self.text_value = linear(dim, inner, dtype=dtype, rngs=rngs)
        self.image_out = linear(inner, dim, dtype=dtype, rngs=rngs)
        self.text_out = linear(inner, dim, dtype=dtype, rngs=rngs)

    def __call__(
        self, image: jax.Array, text: jax.Array, image_mask: jax.Array, token_mask: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """[B, N, D], [B, L, D] and their masks (True = valid) -> what to add to each."""
        dim, inner, tokens = image.shape[-1], self.image_query.out_features, text.shape[1]
        through_tokens = dim * self.heads * tokens <= inner * (dim + tokens)  # products of a cell, times three
        key = self._split(self.text_query(text)) * (inner // self.heads) ** -0.5  # [B, L, h, E]
        if through_tokens:
            score, gather, cells = self._scores_through_tokens, self._gather_through_tokens, 1  # [B, N, h, L]
        else:
            score, gather, cells = self._scores, self._gather, 2  # [B, h, N, L]
        scores = score(image, key).astype(jnp.float32)
        to_image = jnp.where(token_mask[:, None, None], scores, -jnp.inf) if self.mask_text else scores
        to_text = jnp.where(jnp.expand_dims(image_mask, (3 - cells, 3)), scores, -jnp.inf)
        from_text = jax.nn.softmax(to_image, axis=-1).astype(image.dtype)
        from_image = jax.nn.softmax(to_text, axis=cells).astype(image.dtype)
        return gather(image, self._split(self.text_value(text)), from_text, from_image)

    def _split(self, x: jax.Array) -> jax.Array:
        """[..., h * E] -> [..., h, E]: of features, of a kernel's columns, of a bias."""
        return x.reshape(*x.shape[:-1], self.heads, -1)

    def _scores(self, image: jax.Array, key: jax.Array) -> jax.Array:
        # A CPU multiplies many matrices head by head; with the heads inside it would turn the scores around and back.
        return jnp.einsum("bnhe,blhe->bhnl", self._split(self.image_query(image)), key)

    def _gather(
        self, image: jax.Array, text_value: jax.Array, from_text: jax.Array, from_image: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        image_delta = jnp.einsum("bhnl,blhe->bnhe", from_text, text_value)
        text_delta = jnp.einsum("bhnl,bnhe->blhe", from_image, self._split(self.image_value(image)))
        return self.image_out(_joined(image_delta)), self.text_out(_joined(text_delta))

    def _scores_through_tokens(self, image: jax.Array, key: jax.Array) -> jax.Array:
        kernel, bias = affine(self.image_query, image.dtype)
        turned = jnp.einsum("dhe,blhe->bdhl", self._split(kernel), key)
        constant = jnp.einsum("he,blhe->bhl", self._split(bias), key)
        return jnp.einsum("bnd,bdhl->bnhl", image, turned) + constant[:, None]

    def _gather_through_tokens(
        self, image: jax.Array, text_value: jax.Array, from_text: jax.Array, from_image: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        kernel, bias = affine(self.image_out, image.dtype)
        values = jnp.einsum("blhe,hed->bhld", text_value, kernel.reshape(self.heads, -1, kernel.shape[-1]))
        image_delta = jnp.einsum("bnhl,bhld->bnd", from_text, values) + bias
        kernel, bias = affine(self.image_value, image.dtype)
        seen = jnp.einsum("bnhl,bnd->bhld", from_image, image)
        text_delta = jnp.einsum("bhld,dhe->blhe", seen, self._split(kernel))
        return image_delta, self.text_out(_joined(text_delta) + bias)


def _joined(x: jax.Array) -> jax.Array:
    """[B, N, h, E] -> [B, N, h * E]."""
    return x.reshape(*x.shape[:2], -1)


class FusionLayer(nnx.Module):
    """Pre-norm bi-attention with a learnt scale for each channel of the residual."""

    def __init__(self, config: DetectorConfig, *, dtype: jnp.dtype, rngs: nnx.Rngs):
        self.norm_image = layer_norm(config.dim, dtype=dtype, rngs=rngs)
        self.norm_text = layer_norm(config.dim, dtype=dtype, rngs=rngs)
        self.attention = BiAttention(config, dtype=dtype, rngs=rngs)
        self.scale_image = nnx.Param(jnp.full((config.dim,), 1e-4))
        self.scale_text = nnx.Param(jnp.full((config.dim,), 1e-4))

    def __call__(
        self, image: jax.Array, text: jax.Array, image_mask: jax.Array, token_mask: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """[B, N, D], [B, L, D] -> the same shapes. The residual starts from the normalised features, as released."""
        image, text = self.norm_image(image), self.norm_text(text)
        image_delta, text_delta = self.attention(image, text, image_mask, token_mask)
        image = image + self.scale_image[...].astype(image.dtype) * image_delta
        return image, text + self.scale_text[...].astype(text.dtype) * text_delta


class _AdaptedLayer(nnx.Module):
    """Post-norm attention and feed-forward with a place for an adapter before each norm."""

    def __init__(self, dim: int, hidden: int, *, dtype: jnp.dtype, rngs: nnx.Rngs):
        self.adapter1: nnx.Module | None = nnx.data(None)
        self.norm1 = layer_norm(dim, dtype=dtype, rngs=rngs)
        self.ffn = MLP((dim, hidden, dim), dtype=dtype, rngs=rngs)
        self.adapter2: nnx.Module | None = nnx.data(None)
        self.norm2 = layer_norm(dim, dtype=dtype, rngs=rngs)

    def _finish(self, x: jax.Array, condition: jax.Array | None) -> jax.Array:
        if self.adapter1 is not None:
            x = self.adapter1(x, condition)
        x = self.norm1(x)
        x = x + self.ffn(x)
        if self.adapter2 is not None:
            x = self.adapter2(x, condition)
        return self.norm2(x)


class TextLayer(_AdaptedLayer):
    """Self-attention within each sub-sentence."""

    def __init__(self, config: DetectorConfig, *, dtype: jnp.dtype, rngs: nnx.Rngs):
        super().__init__(config.dim, config.text_hidden, dtype=dtype, rngs=rngs)
        self.attention = Attention(config.dim, config.text_heads, dtype=dtype, rngs=rngs)

    def __call__(self, text: jax.Array, position: jax.Array, self_mask: jax.Array) -> jax.Array:
        """[B, L, D], [B, L, D], bool [B, L, L] or [B, heads, L, L] -> [B, L, D]."""
        query = text + position
        mask = self_mask if self_mask.ndim == 4 else self_mask[:, None]
        return self._finish(text + self.attention(query, query, text, mask), None)


class ImageLayer(_AdaptedLayer):
    """Deformable self-attention over all levels; its adapters take the zoom condition."""

    def __init__(self, config: DetectorConfig, *, dtype: jnp.dtype, rngs: nnx.Rngs):
        super().__init__(config.dim, config.hidden, dtype=dtype, rngs=rngs)
        self.attention = DeformableAttention(
            config.dim, config.heads, config.levels, config.points, dtype=dtype, rngs=rngs
        )

    def __call__(self, image: jax.Array, pyramid: Pyramid, condition: jax.Array | None) -> jax.Array:
        """[B, N, D] and the zoom condition [B, D] or None -> [B, N, D]."""
        position = pyramid.position.astype(image.dtype)
        attended = self.attention(image + position, image, pyramid.mask, pyramid.references, pyramid.shapes_hw)
        return self._finish(image + attended, condition)


class EnhancerLayer(nnx.Module):
    """Fusion, then text, then image."""

    def __init__(self, config: DetectorConfig, *, dtype: jnp.dtype, rngs: nnx.Rngs):
        self.fusion = FusionLayer(config, dtype=dtype, rngs=rngs)
        self.text = TextLayer(config, dtype=dtype, rngs=rngs)
        self.image = ImageLayer(config, dtype=dtype, rngs=rngs)

    def __call__(
        self,
        image: jax.Array,
        text: jax.Array,
        pyramid: Pyramid,
        text_position: jax.Array,
        token_mask: jax.Array,
        self_mask: jax.Array,
        condition: jax.Array | None,
    ) -> tuple[jax.Array, jax.Array]:
        """[B, N, D], [B, L, D] -> the same shapes."""
        image, text = self.fusion(image, text, pyramid.mask, token_mask)
        text = self.text(text, text_position, self_mask)
        return self.image(image, pyramid, condition), text


class Enhancer(nnx.Module):
    """The stack of enhancer layers (Liu et al. 2023, section 3.1)."""

    def __init__(self, config: DetectorConfig, *, dtype: jnp.dtype, rngs: nnx.Rngs):
        self.dim, self.remat, self.scan = config.dim, config.remat, config.scan_layers
        self.layers = nnx.List([EnhancerLayer(config, dtype=dtype, rngs=rngs) for _ in range(config.encoder_layers)])

    def __call__(
        self,
        image: jax.Array,
        text: jax.Array,
        pyramid: Pyramid,
        token_mask: jax.Array,
        self_mask: jax.Array,
        position_ids: jax.Array,
        condition: jax.Array | None,
    ) -> tuple[jax.Array, jax.Array]:
        """Enhance.

        Args:
            image: [B, N, D] flattened levels.
            text: [B, L, D].
            pyramid: geometry of the levels.
            token_mask: bool [B, L], True = token.
            self_mask: bool [B, L, L], or [B, heads, L, L] with one mask for each head.
            position_ids: int [B, L], restarting in each sub-sentence.
            condition: zoom condition [B, D] of the image-side adapters, or None.

        Returns:
            Enhanced image [B, N, D] and text [B, L, D].
        """
        text_position = sine_encoding(position_ids, self.dim).astype(text.dtype)

        def call(layer: EnhancerLayer, carry: tuple[jax.Array, jax.Array], *rest: Any) -> tuple[jax.Array, jax.Array]:
            return layer(*carry, *rest)

        rest = pyramid, text_position, token_mask, self_mask, condition
        return run_layers(call, self.layers, (image, text), *rest, remat=self.remat, scan=self.scan)
