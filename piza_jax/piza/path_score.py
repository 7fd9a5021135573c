"""What paths of boxes are compared by: one score of all their boxes' scores, as logarithms."""

import jax
import jax.numpy as jnp

from piza_jax.piza.zoom_config import LEARNT, ZoomConfig

# No logarithm is taken of less than this.
LEAST_SCORE = 1e-12


def log_score(score: jax.Array) -> jax.Array:
    """Logarithm of scores 0..1, finite at 0."""
    return jnp.log(jnp.maximum(score, LEAST_SCORE))


def log_path_score(log_sum: jax.Array, score: jax.Array, count: jax.Array, config: ZoomConfig) -> jax.Array:
    """Logarithm of the path score of paths on their way, by config.rule, of any shape.

    Args:
        log_sum: sum of ``log_score`` over the boxes of the path.
        score: score of its last box.
        count: number of its boxes.
        config: holds the rule.
    """
    if config.rule == "last":
        return log_score(score)
    return log_sum if config.rule == "product" else log_sum / count


def log_end_score(log_path: jax.Array, features: jax.Array, config: ZoomConfig) -> jax.Array:
    """The same of paths at their ends, float32 [...]: as it is, or the learnt score of their features [..., F]."""
    learnt = config.path_score == LEARNT and config.learnt
    return learnt.log_score(features) if learnt else log_path
