"""From a batch to the training loss: one zoom step for each sample, and the box history beside it."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from piza_jax.models.text import expression_tokens
from piza_jax.ops.boxes import at_least
from piza_jax.ops.images import normalise
from piza_jax.piza.detector import PizaDetector
from piza_jax.training.losses import PAPER_WEIGHTS, LossConfig, detection_losses, history_losses


def compute_losses(
    model: PizaDetector, batch: Mapping[str, jax.Array], key: jax.Array, config: LossConfig = PAPER_WEIGHTS
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Total loss and its parts.

    The detector is conditioned on the true progress of its crop; at test time the history encoder reads it, rounded to
    the same steps. No gradient of the detector reaches the history encoder.

    Args:
        model: detector with or without PIZA parts.
        batch: image uint8 [B, H, W, 3], valid_hw int32 [B, 2], input_ids int32 [B, L], token_mask bool [B, L],
            target_box float32 [B, 4] cxcywh, has_target bool [B], history float32 [B, S, 4] xyxy photo pixels,
            history_mask bool [B, S], progress and stop float32 [B]; with ``config.aim_px`` final_box as target_box.
        key: PRNG key of the denoising queries.
        config: weights of the losses and of the matching.

    Returns:
        A scalar and a dict of scalars.
    """
    targets, valid = batch["target_box"][:, None], batch["has_target"][:, None]
    positive = expression_tokens(batch["token_mask"])[:, None]
    aim = at_least(batch["final_box"], config.aim_px / _wh(batch["valid_hw"]))[:, None] if config.aim_px else None
    losses = _detector_losses(model, batch, targets, valid, positive, batch["progress"], key, config, aim=aim)
    if model.history is not None:
        reading = model.read_history(batch["history"], batch["history_mask"])
        losses |= history_losses(reading, batch["progress"], batch["stop"])
    return sum(losses.values(), jnp.zeros(())), losses


def compute_caption_losses(
    model: PizaDetector, batch: Mapping[str, jax.Array], key: jax.Array, config: LossConfig = PAPER_WEIGHTS
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """The same for captions of several phrases and a plain view of the whole picture, without zoom or history.

    Args:
        model: detector, its PIZA parts unused.
        batch: image uint8 [B, H, W, 3], valid_hw int32 [B, 2], input_ids int32 [B, L], token_mask bool [B, L],
            target_boxes float32 [B, G, 4] cxcywh, target_valid bool [B, G], positive and mentioned bool [B, G, L].
        key: PRNG key of the denoising queries.
        config: weights of the losses and of the matching.

    Returns:
        A scalar and a dict of scalars.
    """
    targets = batch["target_boxes"], batch["target_valid"], batch["positive"]
    losses = _detector_losses(model, batch, *targets, None, key, config, batch["mentioned"])
    return sum(losses.values(), jnp.zeros(())), losses


def _detector_losses(
    model: PizaDetector,
    batch: Mapping[str, jax.Array],
    targets: jax.Array,
    valid: jax.Array,
    positive: jax.Array,
    progress: jax.Array | None,
    key: jax.Array,
    config: LossConfig,
    mentioned: jax.Array | None = None,
    aim: jax.Array | None = None,
) -> dict[str, jax.Array]:
    """Losses of targets cxcywh [B, G, 4], their validity [B, G] and tokens [B, G, L], in views of progress [B]."""
    text = model.encode_text(batch["input_ids"], batch["token_mask"])
    queries = model.detector.denoising
    denoising = queries.draw(key, targets, valid) if queries is not None else None
    images = normalise(batch["image"], batch["valid_hw"])
    detections = model.detect(images, batch["valid_hw"], text, progress, denoising)
    positive = positive.astype(jnp.float32)
    return detection_losses(
        detections, targets, valid, positive, batch["token_mask"], batch["valid_hw"], config, mentioned, aim
    )


def _wh(valid_hw: jax.Array) -> jax.Array:
    return valid_hw[..., ::-1].astype(jnp.float32)
