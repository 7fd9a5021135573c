"""Box-history encoder: from the boxes so far to the progress of the search and the wish to stop."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from piza_jax.models.layers import Attention, layer_norm

_FEATURES, _HEADS, _HIDDEN, _OUT, _FOURIER_HIDDEN = 32, 4, 2048, 16, 32


class HistoryReading(NamedTuple):
    """What the history says, one value for each sample."""

    stop_probability: jax.Array  # float32 [B]
    progress: jax.Array  # float32 [B], 0 at the whole photo and 1 at the target
    stop_logit: jax.Array  # float32 [B]
    feature: jax.Array  # float32 [B, 16], unit length


def box_features(boxes_xyxy: jax.Array, mask: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Sizes and places relative to the first box.

    Args:
        boxes_xyxy: [B, S, 4] photo pixels, the whole photo first.
        mask: bool [B, S], True = a box of the history.

    Returns:
        Area relative to the first and to the previous box [B, S, 2, 1]; (width, height) and (x, y) of the centre, all
        relative to the first box [B, S, 2, 2]. Places without a box are zero.
    """
    low, size = boxes_xyxy[..., :2], boxes_xyxy[..., 2:] - boxes_xyxy[..., :2]
    first = size[:, :1]
    area = jnp.prod(size, axis=-1)
    previous = jnp.concatenate([area[:, :1], area[:, :-1]], axis=1)
    to_previous = jnp.where(jnp.arange(area.shape[1]) == 0, 1.0, area / (previous + 1e-8))
    areas = jnp.stack([area / area[:, :1], to_previous], axis=-1)[..., None]
    places = jnp.stack([size / first, (low + 0.5 * size) / first], axis=-2)
    keep = mask[:, :, None, None]
    return jnp.where(keep, areas, 0.0), jnp.where(keep, places, 0.0)


class FourierFeatures(nnx.Module):
    """Learnable Fourier features (Li et al. 2021, eq. 2-3) of positions with ``inputs`` coordinates."""

    def __init__(self, inputs: int, *, rngs: nnx.Rngs):
        waves = _FOURIER_HIDDEN // inputs // 2 // 2
        self.frequencies = nnx.Param(jax.random.normal(rngs.params(), (inputs, waves)))
        self.hidden = nnx.Linear(2 * waves, _FOURIER_HIDDEN, rngs=rngs)
        self.out = nnx.Linear(_FOURIER_HIDDEN, _FEATURES // 4, rngs=rngs)

    def __call__(self, positions: jax.Array) -> jax.Array:
        """[..., G, inputs] -> [..., G * 8]."""
        angles = positions @ self.frequencies[...]
        waves = jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1) / (2 * angles.shape[-1]) ** 0.5
        out = self.out(jax.nn.gelu(self.hidden(waves), approximate=False))
        return out.reshape(*out.shape[:-2], -1)


class HistoryEncoder(nnx.Module):
    """Box features, one post-norm transformer layer, mean over the boxes, two small heads. All in float32."""

    def __init__(self, *, rngs: nnx.Rngs):
        kind = jnp.dtype("float32")
        self.area_features = FourierFeatures(1, rngs=rngs)
        self.place_features = FourierFeatures(2, rngs=rngs)
        self.attention = Attention(_FEATURES, _HEADS, dtype=kind, rngs=rngs)
        self.norm1 = layer_norm(_FEATURES, dtype=kind, rngs=rngs)
        self.up = nnx.Linear(_FEATURES, _HIDDEN, rngs=rngs)
        self.down = nnx.Linear(_HIDDEN, _FEATURES, rngs=rngs)
        self.norm2 = layer_norm(_FEATURES, dtype=kind, rngs=rngs)
        self.out = nnx.Linear(_FEATURES, _OUT, rngs=rngs)
        self.stop_hidden = nnx.Linear(_OUT, _OUT, rngs=rngs)
        self.stop_out = nnx.Linear(_OUT, 1, rngs=rngs)
        self.progress_hidden = nnx.Linear(_OUT, _OUT, rngs=rngs)
        self.progress_out = nnx.Linear(_OUT, 1, rngs=rngs)

    def __call__(self, boxes_xyxy: jax.Array, mask: jax.Array) -> HistoryReading:
        """Photo-pixel boxes float32 [B, S, 4], whole photo first, and mask bool [B, S] -> readings."""
        areas, places = box_features(boxes_xyxy, mask)
        x = jnp.concatenate([self.area_features(areas), self.place_features(places)], axis=-1)  # [B, S, 32]
        x = self.norm1(x + self.attention(x, x, x, mask[:, None, None]))
        x = self.norm2(x + self.down(jax.nn.relu(self.up(x))))
        x = jnp.where(mask[..., None], self.out(x), 0.0)
        feature = jnp.sum(x, axis=1) / jnp.sum(mask, axis=1, keepdims=True)
        feature = feature / jnp.maximum(jnp.linalg.norm(feature, axis=-1, keepdims=True), 1e-12)
        logit = self.stop_out(jax.nn.relu(self.stop_hidden(feature)))[:, 0]
        progress = self.progress_out(jax.nn.relu(self.progress_hidden(feature)))[:, 0]
        return HistoryReading(jax.nn.sigmoid(logit), progress, logit, feature)
