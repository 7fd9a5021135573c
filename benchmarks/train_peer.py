"""transformers' detector as PIZA-Adapter+ trains it, in PyTorch: adapters, zoom embedding, trainable set, losses, step.

The losses are ours, written for a GPU as a careful PyTorch user would: everything on the device, and no Hungarian
algorithm on the host, which transformers' own training runs once for each decoder layer. The model is in eval mode, as
ours has no dropout; that also spares it the checks for infinities that transformers makes in training.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.interleaved import Machine
from benchmarks.peers import torch_input
from piza_jax.training.losses import ALPHA, PAPER_WEIGHTS
from piza_jax.training.optim import OptimizerConfig

Weights = Mapping[str, np.ndarray]
_UNUSED_NORM = "swin.layernorm"  # the backbone's last norm, whose output nothing takes


def linear(weights: Weights, name: str) -> nn.Linear:
    """A layer of ours under its name."""
    kernel = torch.tensor(weights[f"{name}/kernel"])
    layer = nn.Linear(*kernel.shape)
    with torch.no_grad():
        layer.weight.copy_(kernel.T)
        layer.bias.copy_(torch.tensor(weights[f"{name}/bias"]))
    return layer


class ZoomEmbedding(nn.Module):
    """Encoded progress [B, D] -> the condition of the image-side adapters, kept for them in ``now``."""

    def __init__(self, weights: Weights):
        super().__init__()
        self.hidden, self.out = linear(weights, "zoom_embedding/hidden"), linear(weights, "zoom_embedding/out")
        self.now: Tensor | None = None

    def forward(self, encoded: Tensor) -> Tensor:
        """[B, D] -> [B, D]."""
        self.now = self.out(F.silu(self.hidden(encoded)))
        return self.now


class AdaptedNorm(nn.Module):
    """An adapter in front of the norm that it belongs to; on the image side it adds the zoom's condition."""

    def __init__(self, norm: nn.LayerNorm, weights: Weights, name: str, zoom: ZoomEmbedding | None):
        super().__init__()
        self.norm, self.down, self.up = norm, linear(weights, f"{name}/down"), linear(weights, f"{name}/up")
        self.scale = nn.Parameter(torch.tensor(weights[f"{name}/scale"]))
        self.zoom = [zoom]  # in a list, so that it is no part of this module

    def forward(self, x: Tensor) -> Tensor:
        """[B, N, D] -> [B, N, D]."""
        out = self.up(F.gelu(self.down(x))) * self.scale
        zoom = self.zoom[0]
        if zoom is not None and zoom.now is not None:
            out = out + zoom.now[:, None]
        return self.norm(x + out)


def put_adapters(model: Any, weights: Weights) -> ZoomEmbedding:
    """Give the detector our adapters in place, by our parameters' names."""
    zoom = ZoomEmbedding(weights)
    for index, layer in enumerate(model.model.encoder.layers):
        image, text = layer.deformable_layer, layer.text_enhancer_layer
        for place, side, names, condition in (
            (image, "image", ("self_attn_layer_norm", "final_layer_norm"), zoom),
            (text, "text", ("layer_norm_before", "layer_norm_after"), None),
        ):
            for number, norm in enumerate(names, 1):
                ours = f"detector/enhancer/layers/{index}/{side}/adapter{number}"
                setattr(place, norm, AdaptedNorm(getattr(place, norm), weights, ours, condition))
    return zoom


def trainable(model: Any, zoom: ZoomEmbedding) -> Iterator[tuple[str, nn.Parameter]]:
    """What PIZA-Adapter+ trains: adapters, every LayerNorm, the zoom embedding."""
    for place, module in model.named_modules():
        if _UNUSED_NORM in place:
            continue
        if isinstance(module, (nn.LayerNorm, AdaptedNorm)):
            own = module.parameters(recurse=isinstance(module, AdaptedNorm))
            yield from ((place, parameter) for parameter in own)
    yield from (("zoom", parameter) for parameter in zoom.parameters())


class Trainer:
    """One training step after another."""

    def __init__(self, model: Any, weights: Weights, machine: Machine, settings: OptimizerConfig):
        self.model, self.machine, self.settings = model, machine, settings
        self.zoom = put_adapters(model, weights)
        model.to(machine.torch_device).requires_grad_(False)
        self.zoom.to(machine.torch_device)
        found = {id(parameter): (name, parameter) for name, parameter in trainable(model, self.zoom)}
        self.parameters = [parameter.requires_grad_() for _, parameter in found.values()]
        groups: dict[float, list[nn.Parameter]] = {1.0: [], 0.1: []}
        for name, parameter in found.values():
            groups[0.1 if ".backbone." in name else 1.0].append(parameter)
        self.optimizer = torch.optim.AdamW(
            [{"params": group, "lr": factor * settings.learning_rate} for factor, group in groups.items()],
            betas=(settings.b1, settings.b2),
            eps=settings.eps,
            weight_decay=settings.weight_decay,
            fused=machine.kind == "gpu",
        )
        self.hidden: list[Tensor] = []
        for layer in model.model.decoder.layers:
            layer.register_forward_hook(lambda _, __, output: self.hidden.append(output[0]))

    def step(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Loss and norm of its gradient, on the device; see ``train_step`` for the batch."""
        self.optimizer.zero_grad(set_to_none=True)
        with self.machine.autocast():
            layers = self._layers(batch)
        size = torch.tensor(batch["image"].shape[2:0:-1], device=batch["image"].device)  # (w, h)
        loss = sum(layer_loss(logits.float(), boxes.float(), batch, size) for logits, boxes in layers)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.parameters, self.settings.clip_norm)
        self.optimizer.step()
        return loss.detach(), norm.detach()

    def _layers(self, batch: Mapping[str, Tensor]) -> list[tuple[Tensor, Tensor]]:
        """Logits [B, Q, T] and boxes [B, Q, 4] of every decoder layer and of query selection."""
        model, words = self.model, batch["input_ids"]
        mask, count = torch.ones_like(words), words.shape[1]
        self.zoom(batch["progress_code"])
        self.hidden.clear()
        pixels, pixel_mask = torch_input(batch["image"], batch["valid_hw"])
        found = model.model(pixel_values=pixels, pixel_mask=pixel_mask, input_ids=words, attention_mask=mask)
        text, start = found.encoder_last_hidden_state_text, found.init_reference_points
        references = [start, *found.intermediate_reference_points.unbind(1)]
        layers, previous = [], start
        for index, hidden in enumerate(self.hidden):
            normed = found.intermediate_hidden_states[:, index]
            logits = model.class_embed[index](normed, text, mask.bool())[..., :count]
            boxes = (model.bbox_embed[index](normed) + torch.special.logit(previous, eps=1e-5)).sigmoid()
            layers.append((logits, boxes))
            # As in ours (DINO's look-forward-twice): the next layer's loss reaches this refinement too.
            step = model.bbox_embed[index](hidden)
            previous = (step + torch.special.logit(references[index], eps=1e-5)).sigmoid()
        cells = found.enc_outputs_class[..., :count]
        best = cells.max(-1).values.topk(start.shape[1], dim=1).indices[..., None]
        boxes = found.enc_outputs_coord_logits.gather(1, best.expand(-1, -1, 4)).sigmoid()
        return [*layers, (cells.gather(1, best.expand(-1, -1, count)), boxes)]


def layer_loss(logits: Tensor, boxes: Tensor, batch: Mapping[str, Tensor], size_wh: Tensor) -> Tensor:
    """Focal, L1 and GIoU losses of the query that fits the one target of each sample best; see training/losses.py."""
    target, positive, weights = batch["target_box"][:, None], batch["positive"], PAPER_WEIGHTS
    with torch.no_grad():
        p = logits.sigmoid()
        absent = -torch.log(1 - p + 1e-12) * (1 - ALPHA) * p**2
        there = -torch.log(p + 1e-12) * ALPHA * (1 - p) ** 2
        cost = weights.class_cost * torch.where(positive[:, None] > 0, there, absent).sum(-1)
        cost = cost + weights.l1_cost * (boxes - target).abs().sum(-1)
        cost = cost - weights.giou_cost * giou(boxes, target, size_wh)
        index = cost.argmin(1)  # [B]
    labels = torch.zeros_like(logits)
    rows = torch.arange(len(index), device=index.device)
    labels[rows, index] = positive
    p = logits.sigmoid()
    right = p * labels + (1 - p) * (1 - labels)
    alpha = ALPHA * labels + (1 - ALPHA) * (1 - labels)
    focal = alpha * F.binary_cross_entropy_with_logits(logits, labels, reduction="none") * (1 - right) ** 2
    matched = boxes[rows, index][:, None]
    l1, overlap = (matched - target).abs().sum(), giou(matched, target, size_wh).sum()
    total = weights.class_weight * focal.sum() + weights.l1_weight * l1
    return (total + weights.giou_weight * (len(index) - overlap)) / len(index)


def giou(a: Tensor, b: Tensor, size_wh: Tensor) -> Tensor:
    """Generalised IoU [...] of boxes cxcywh [..., 4] in 0..1 of a view of that size."""
    low_a, high_a, low_b, high_b = (
        (box[..., :2] + sign * box[..., 2:] / 2) * size_wh for box in (a, b) for sign in (-1, 1)
    )
    overlap = (torch.minimum(high_a, high_b) - torch.maximum(low_a, low_b)).clamp(min=0).prod(-1)
    union = ((high_a - low_a).prod(-1) + (high_b - low_b).prod(-1) - overlap).clamp(min=1e-7)
    hull = (torch.maximum(high_a, high_b) - torch.minimum(low_a, low_b)).clamp(min=0).prod(-1).clamp(min=1e-7)
    return overlap / union - (hull - union) / hull
