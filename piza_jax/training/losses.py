"""Detection losses (focal, L1, GIoU of every decoder layer, query selection and denoising) and history losses."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import optax

from piza_jax.errors import PizaError
from piza_jax.models.grounding_dino import Cells, Detections
from piza_jax.ops.boxes import cxcywh_to_xyxy, iou_and_giou
from piza_jax.ops.matching import aimed_cost, match, matching_cost
from piza_jax.piza.history import HistoryReading

ALPHA = 0.25


@dataclass(frozen=True)
class LossConfig:
    """Weights of the detection losses, and of the same terms in the cost that matches queries to targets.

    The defaults are the released recipe. A run from scratch on little data is better off with ``class_cost`` 0: at
    first the class cost hands every target to whatever query happened to score best, wherever it looks. It also gains
    by ``cell_weight``, which the release does not have: every cell of the encoder inside a target says what it lies in,
    where matching asks a single one. And ``aim_px`` above 0, which the release does not have either, keeps what a base
    knows of things while it learns to zoom: cells and matching (then by centres, without the costs) go by the thing
    that a search ends on, seen at least this many pixels wide and high, and only the boxes by the next zoom box. A zoom
    box holds a dozen things more and much ground, which are nothing that the sentence speaks of.
    """

    class_weight: float = 1.0
    l1_weight: float = 5.0
    giou_weight: float = 2.0
    class_cost: float = 2.0
    l1_cost: float = 5.0
    giou_cost: float = 2.0
    cell_weight: float = 0.0
    aim_px: float = 0.0


PAPER_WEIGHTS = LossConfig()


def _focal(logits: jax.Array, labels: jax.Array, keep: jax.Array) -> jax.Array:
    """Sum of the sigmoid focal loss (gamma 2) over the entries with ``keep``; logits elsewhere may be -inf."""
    logits = jnp.where(keep, logits, 0.0)
    losses = optax.losses.sigmoid_focal_loss(logits, labels, alpha=ALPHA, gamma=2.0)
    return jnp.sum(jnp.where(keep, losses, 0.0))


def _box_losses(
    boxes_cxcywh: jax.Array, target_cxcywh: jax.Array, valid: jax.Array, scale_wh: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Sums of L1 and of 1 - GIoU over matched boxes [B, G, 4]; the overlap is measured in pixels."""
    l1 = jnp.sum(jnp.abs(boxes_cxcywh - target_cxcywh), axis=-1)
    scale = jnp.tile(scale_wh, (1, 2))[:, None]
    _, giou = iou_and_giou(cxcywh_to_xyxy(boxes_cxcywh) * scale, cxcywh_to_xyxy(target_cxcywh) * scale)
    keep = valid.astype(l1.dtype)
    return jnp.sum(l1 * keep), jnp.sum((1.0 - giou) * keep)


def _matched_losses(
    logits: jax.Array,
    boxes: jax.Array,
    target_cxcywh: jax.Array,
    target_valid: jax.Array,
    positive: jax.Array,
    token_mask: jax.Array,
    scale_wh: jax.Array,
    config: LossConfig,
    aim: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Focal, L1 and GIoU sums of one layer after matching; shapes as in ``detection_losses``."""

    def assign(logits, boxes, positive, token_mask, target, valid, scale, aim):
        if aim is not None:
            return match(aimed_cost(boxes, target, aim), valid)
        cost = matching_cost(
            logits,
            boxes,
            positive,
            token_mask,
            target,
            scale,
            focal_weight=config.class_cost,
            l1_weight=config.l1_cost,
            giou_weight=config.giou_cost,
        )
        return match(cost, valid)

    index = jax.vmap(assign)(
        *jax.lax.stop_gradient((logits, boxes)), positive, token_mask, target_cxcywh, target_valid, scale_wh, aim
    )  # [B, G]
    hit = jax.nn.one_hot(index, logits.shape[1], dtype=jnp.float32) * target_valid[..., None]  # [B, G, Q]
    labels = jnp.einsum("bgq,bgl->bql", hit, positive)
    sample = jnp.any(target_valid, axis=1)[:, None, None]
    focal = _focal(logits, labels, token_mask[:, None] & sample & jnp.ones_like(labels, bool))
    matched = jnp.take_along_axis(boxes, index[..., None], axis=1)
    l1, giou = _box_losses(matched, target_cxcywh, target_valid, scale_wh)
    return focal, l1, giou


def _denoising_losses(
    logits: jax.Array,
    boxes: jax.Array,
    target_cxcywh: jax.Array,
    target_valid: jax.Array,
    positive: jax.Array,
    token_mask: jax.Array,
    scale_wh: jax.Array,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Focal, L1 and GIoU sums of one layer's denoising queries, whose targets are known by their place."""
    batch, count, length = logits.shape
    targets = target_cxcywh.shape[1]
    groups = count // (2 * targets)
    labels = jnp.zeros((batch, groups, 2, targets, length)).at[:, :, 0].set(positive[:, None])
    labels = (labels * target_valid[:, None, None, :, None]).reshape(batch, count, length)
    sample = jnp.any(target_valid, axis=1)[:, None, None]
    focal = _focal(logits, labels, token_mask[:, None] & sample & jnp.ones_like(labels, bool))
    clean = boxes.reshape(batch, groups, 2, targets, 4)[:, :, 0].reshape(batch, groups * targets, 4)
    l1, giou = _box_losses(
        clean, jnp.tile(target_cxcywh, (1, groups, 1)), jnp.tile(target_valid, (1, groups)), scale_wh
    )
    return focal, l1, giou


def cell_loss(
    cells: Cells, target_cxcywh: jax.Array, target_valid: jax.Array, positive: jax.Array, token_mask: jax.Array
) -> jax.Array:
    """Focal loss of all cells over the number of those in a target; of several targets a cell lies in the smallest."""
    away = jnp.abs(cells.centres[:, :, None] - target_cxcywh[:, None, :, :2])  # [B, N, G, 2]
    inside = jnp.all(away < 0.5 * target_cxcywh[:, None, :, 2:], axis=-1) & target_valid[:, None]
    area = jnp.where(inside, (target_cxcywh[..., 2] * target_cxcywh[..., 3])[:, None], jnp.inf)
    nearest = jax.nn.one_hot(jnp.argmin(area, axis=-1), target_valid.shape[1]) * inside
    usable = cells.usable & jnp.any(target_valid, axis=1)[:, None]
    labels = jnp.einsum("bng,bgl->bnl", nearest, positive)
    keep = usable[..., None] & token_mask[:, None]
    return _focal(cells.logits, labels, keep) / jnp.maximum(jnp.sum(jnp.any(inside, axis=-1) & usable), 1)


def detection_losses(
    detections: Detections,
    target_cxcywh: jax.Array,
    target_valid: jax.Array,
    positive: jax.Array,
    token_mask: jax.Array,
    valid_hw: jax.Array,
    config: LossConfig = PAPER_WEIGHTS,
    mentioned: jax.Array | None = None,
    aim_cxcywh: jax.Array | None = None,
) -> dict[str, jax.Array]:
    """Weighted losses, each a scalar; their sum is the detector's training loss.

    A sample without a valid target (a stop sample) counts nowhere. Sums are divided by the number of targets in the
    whole batch, over all devices.

    Args:
        detections: predictions, with denoising ones or without.
        target_cxcywh: float32 [B, G, 4] in 0..1 of the valid content.
        target_valid: bool [B, G].
        positive: float32 [B, G, L], 1 where a token names the target.
        token_mask: bool [B, L].
        valid_hw: int [B, 2] height and width of the content in pixels.
        config: weights of the losses and of the matching cost.
        mentioned: [B, G, L], tokens that name a box in a sentence about another. Query selection counts them as
            positive, and such a box as a target, so that it reaches the decoder; there it is none.
        aim_cxcywh: float32 [B, G, 4], what the targets are zoomed to: decides in place of the targets which queries and
            cells are positive.

    Returns:
        "loss_cls", "loss_bbox", "loss_iou" of the last layer, the same with prefix "d0.", "d1.", ... of the earlier
        ones, "enc_" of query selection, and "dn_" of denoising, named as the reference names them.
    """
    scale_wh = valid_hw[:, ::-1].astype(jnp.float32)
    targets = (target_cxcywh, target_valid, positive.astype(jnp.float32), token_mask, scale_wh)
    total = jnp.maximum(jnp.sum(target_valid), 1).astype(jnp.float32)
    weights = config.class_weight, config.l1_weight, config.giou_weight
    losses: dict[str, jax.Array] = {}

    def add(layer: str, kind: str, values: tuple[jax.Array, ...], count: jax.Array) -> None:
        for name, weight, value in zip(("loss_cls", "loss_bbox", "loss_iou"), weights, values, strict=True):
            losses[f"{layer}{kind}{name}"] = weight * value / count

    layers = detections.logits.shape[0]
    for index in range(layers):
        prefix = "" if index == layers - 1 else f"d{index}."
        found = detections.logits[index], detections.boxes[index]
        add(prefix, "", _matched_losses(*found, *targets, config, aim_cxcywh), total)
        if detections.denoising_logits is not None and detections.denoising_boxes is not None:
            groups = detections.denoising_logits.shape[2] // (2 * target_cxcywh.shape[1])
            noisy = detections.denoising_logits[index], detections.denoising_boxes[index]
            add(prefix, "dn_", _denoising_losses(*noisy, *targets), total * groups)
    if mentioned is not None:
        wanted = target_valid | jnp.any(mentioned, axis=-1)
        targets = (target_cxcywh, wanted, jnp.maximum(targets[2], mentioned), token_mask, scale_wh)
        total = jnp.maximum(jnp.sum(wanted), 1).astype(jnp.float32)
    selected = detections.selected_logits, detections.selected_boxes
    add("", "enc_", _matched_losses(*selected, *targets, config, aim_cxcywh), total)
    if config.cell_weight:
        if detections.cells is None:
            raise PizaError("loss.cell_weight needs the scores of all cells, which these detections do not carry")
        seen = target_cxcywh if aim_cxcywh is None else aim_cxcywh
        losses["cell_loss_cls"] = config.cell_weight * cell_loss(detections.cells, seen, *targets[1:4])
    return losses


def history_losses(reading: HistoryReading, progress: jax.Array, stop: jax.Array) -> dict[str, jax.Array]:
    """Stop (binary cross-entropy) and progress (L1), each a mean over the batch of targets float32 [B]."""
    return {
        "history_stop": jnp.mean(optax.losses.sigmoid_binary_cross_entropy(reading.stop_logit, stop)),
        "history_progress": jnp.mean(jnp.abs(reading.progress - progress)),
    }
