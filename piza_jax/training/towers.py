"""A first stage of training from scratch: cells of the neck against tokens of the projected text, nothing between them.

A detector as a whole learns from scratch what a thing is called long before it learns its colour: each side of the
comparison puts out what the other does not carry yet. Without the enhancer and the decoder between them both sides
learn kinds and colours within thousands of pictures, at a third of the time each. The detector then starts from towers
that agree, as the released ones start from pretrained ones.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from piza_jax.models.grounding_dino import Cells
from piza_jax.models.pyramid import proposals
from piza_jax.ops.images import normalise
from piza_jax.piza.detector import PizaDetector
from piza_jax.training.losses import PAPER_WEIGHTS, LossConfig, cell_loss

# Searched in a parameter's name: all that the stage trains.
TOWERS = r"/(backbone|neck|bert|text_projection|selection_class_head)/"


def compute_tower_losses(
    model: PizaDetector, batch: Mapping[str, jax.Array], key: jax.Array, config: LossConfig = PAPER_WEIGHTS
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """The loss of all cells over captions, without enhancer and decoder.

    Args:
        model: detector; its parts beyond TOWERS are not used.
        batch: as for objective.compute_caption_losses.
        key: not used, there is no chance in it.
        config: cell_weight, its weight.

    Returns:
        A scalar and a dict of it.
    """
    del key
    detector, images = model.detector, normalise(batch["image"], batch["valid_hw"])
    text = model.encode_text(batch["input_ids"], batch["token_mask"])
    levels = detector.features(images)
    memory, pyramid = detector.flatten(levels, (images.shape[1], images.shape[2]), batch["valid_hw"])
    tokens = detector.text_projection(text.hidden)
    logits = detector.selection_class_head(_standardise(memory), _standardise(tokens), text.token_mask)
    boxes_cxcywh, usable = proposals(pyramid)
    cells = Cells(logits, boxes_cxcywh[..., :2], usable)
    positive = batch["positive"].astype(jnp.float32)
    loss = cell_loss(cells, batch["target_boxes"], batch["target_valid"], positive, batch["token_mask"])
    loss = config.cell_weight * loss
    return loss, {"cell_loss_cls": loss}


def _standardise(x: jax.Array) -> jax.Array:
    """What a LayerNorm without parameters makes of features [..., D]."""
    x = x - jnp.mean(x, axis=-1, keepdims=True)
    return x * jax.lax.rsqrt(jnp.mean(jnp.square(x), axis=-1, keepdims=True) + 1e-5)
