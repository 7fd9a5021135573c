"""Contrastive denoising queries (DINO, Zhang et al. 2023, section 3.3): noisy copies of the targets to be repaired."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from piza_jax.models.config import DetectorConfig
from piza_jax.ops.boxes import cxcywh_to_xyxy, inverse_sigmoid, xyxy_to_cxcywh


class Denoising(NamedTuple):
    """One draw. Queries come in groups; a group holds one positive for each target and then one negative for each."""

    content: jax.Array  # [B, N, D], N = 2 * groups * targets
    boxes_unact: jax.Array  # float32 [B, N, 4] cxcywh before the sigmoid
    query_mask: jax.Array  # bool [N + Q, N + Q], True = may attend
    groups: int  # static


def group_count(denoising_queries: int, targets: int) -> int:
    """Groups that share the budget of query pairs among the targets, at least one."""
    return max(denoising_queries // max(targets, 1), 1)


def query_mask(targets: int, groups: int, queries: int) -> jax.Array:
    """Groups see themselves and the matching queries; matching queries see no group. bool [N + Q, N + Q]."""
    group = jnp.concatenate([jnp.repeat(jnp.arange(groups), 2 * targets), jnp.full((queries,), groups)])
    return (group[:, None] == group[None]) | (group[None] == groups)


class DenoisingQueries(nnx.Module):
    """Label embedding and the noise on labels and boxes."""

    def __init__(self, config: DetectorConfig, *, rngs: nnx.Rngs):
        self.pairs, self.queries = config.denoising_queries, config.queries
        self.label_noise, self.box_noise = config.label_noise, config.box_noise
        self.label_embedding = nnx.Embed(config.label_classes, config.dim, rngs=rngs)

    def draw(self, key: jax.Array, target_cxcywh: jax.Array, target_valid: jax.Array) -> Denoising:
        """Draw noisy queries around the targets.

        Args:
            key: PRNG key.
            target_cxcywh: float32 [B, G, 4] in 0..1 of the valid content.
            target_valid: bool [B, G]; queries of other targets are zeros, as in a padded batch.
        """
        batch, targets, _ = target_cxcywh.shape
        groups = group_count(self.pairs, targets)
        shape = (batch, groups, 2, targets)
        flip_key, label_key, sign_key, size_key = jax.random.split(key, 4)
        flipped = jax.random.bernoulli(flip_key, 0.5 * self.label_noise, shape)
        labels = jnp.where(flipped, jax.random.randint(label_key, shape, 0, self.label_embedding.num_embeddings), 0)
        content = self.label_embedding(labels)

        corners = cxcywh_to_xyxy(target_cxcywh)[:, None, None]  # [B, 1, 1, G, 4]
        reach = jnp.tile(target_cxcywh[..., 2:], (1, 1, 2))[:, None, None] * (0.5 * self.box_noise)
        size = jax.random.uniform(size_key, (*shape, 4)) + jnp.arange(2.0)[:, None, None]  # negatives lie further out
        sign = jax.random.rademacher(sign_key, (*shape, 4), jnp.float32)
        noisy = xyxy_to_cxcywh(jnp.clip(corners + sign * size * reach, 0.0, 1.0))
        boxes_unact = inverse_sigmoid(noisy, 1e-3)

        valid = target_valid[:, None, None, :, None]
        return Denoising(
            jnp.where(valid, content, 0.0).reshape(batch, -1, content.shape[-1]),
            jnp.where(valid, boxes_unact, 0.0).reshape(batch, -1, 4),
            query_mask(targets, groups, self.queries),
            groups,
        )
