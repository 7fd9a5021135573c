"""transformers' MM-GroundingDINO with random weights, the same detector as ours loads it, and one look of each.

The weights are those of the tests, drawn so that no part of the detector hides; they go through the converter.
"""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx
from PIL import Image

from benchmarks.interleaved import Machine, check
from piza_jax.convert.load import Loaded, load_source
from piza_jax.ops.images import PIXEL_MEAN, PIXEL_STD
from piza_jax.piza.abstract import abstract_detector
from piza_jax.piza.boxes import LEAST_BOX_PX
from piza_jax.piza.detector import PizaConfig, PizaDetector

# As long as SOREC's, which have 24 words on average.
SENTENCE = (
    "The small blue car stands between a white van on its left and a black car on its right, in front of a red house "
    "with a flat roof."
)
# How far answers may be apart, by dtype: the box in parts of the crop's longer side, and the score. With less precision
# a random detector may prefer another of its many nearly equal boxes, so that only the score can be held to account.
LIMITS = {"float32": (1e-3, 1e-3), "tensorfloat32": (math.inf, 2e-2), "bfloat16": (math.inf, 0.1)}
SMALL_SWIN = {"embed_dim": 24, "depths": [1, 1], "num_heads": [1, 2], "window_size": 5, "out_indices": [1, 2]}
SMALL_BERT = {"hidden_size": 40, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 56}
SMALL = {
    "num_feature_levels": 2,
    "encoder_layers": 1,
    "decoder_layers": 2,
    "decoder_bbox_embed_share": False,
    "decoder_cls_embed_share": False,
}


@dataclass(frozen=True)
class Pair:
    """One detector twice.

    Attributes:
        loaded: ours, with its tokenizer.
        model: transformers', in eval mode, on the device.
    """

    loaded: Loaded
    model: Any


def make_pair(folder: Path, small: bool, machine: Machine) -> Pair:
    """Full-size Swin-T with BERT-base, or something small, in transformers' format in ``folder``, and loaded by us."""
    from tests import bert_vocabulary, torch_models

    kind = "mm-grounding-dino"
    model = torch_models.build(kind, SMALL_SWIN, SMALL_BERT, **SMALL) if small else torch_models.full(kind)
    torch_models.save(model, folder)
    bert_vocabulary.write_vocabulary(folder, [SENTENCE])
    loaded = load_source(folder)
    if machine.dtype == "bfloat16":
        loaded = dataclasses.replace(loaded, model=with_settings(loaded, dtype="bfloat16"))
    return Pair(loaded, model.to(machine.torch_device))


def with_settings(loaded: Loaded, **settings: str) -> PizaDetector:
    """The detector with the same parameters and other settings of DetectorConfig, such as dtype."""
    detector = dataclasses.replace(loaded.config.detector, **settings)
    model = abstract_detector(dataclasses.replace(loaded.config, detector=detector))
    nnx.update(model, nnx.state(loaded.model, nnx.Param))
    return model


def extended(loaded: Loaded, config: PizaConfig) -> PizaDetector:
    """The detector of a configuration with more parts: its own parameters, and random ones in those parts.

    New parts begin as nothing, where a mistake in them would not show; here they do not.
    """
    model = abstract_detector(config)
    own = dict(nnx.to_flat_state(nnx.state(loaded.model, nnx.Param)))
    rng, pairs = np.random.default_rng(1), []
    for path, parameter in nnx.to_flat_state(nnx.state(model, nnx.Param)):
        if path in own:
            pairs.append((path, own[path]))
            continue
        value = (path[-1] == "scale") + 0.02 * rng.normal(size=parameter.shape)
        pairs.append((path, parameter.replace(jax.device_put(value.astype(parameter.dtype)))))
    nnx.update(model, nnx.from_flat_state(pairs))
    return model


def token_ids(loaded: Loaded, sentence: str) -> np.ndarray:
    """Token ids int64 [1, T] without padding, as the peer takes them."""
    assert loaded.tokenizer is not None
    input_ids, token_mask = loaded.tokenizer.encode(sentence, loaded.max_tokens)
    return input_ids[token_mask].astype(np.int64)[None]


def photo(height: int, width: int) -> np.ndarray:
    """A photo of soft blotches and noise, uint8 [H, W, 3]."""
    rng = np.random.default_rng(0)
    blotches = rng.integers(0, 256, (max(height // 32, 2), max(width // 32, 2), 3)).astype(np.uint8)
    soft = Image.fromarray(blotches).resize((width, height), Image.Resampling.BICUBIC)
    noise = rng.integers(-20, 21, (height, width, 1), np.int16)
    return np.clip(np.asarray(soft) + noise, 0, 255).astype(np.uint8)


def torch_input(pixels: Any, valid_hw: Any) -> tuple[Any, Any]:
    """Views uint8 tensor [B, H, W, 3] and (h, w) tensor [B, 2] -> pixel_values float32 [B, 3, H, W] and pixel_mask."""
    import torch

    place = {"device": pixels.device}
    scaled = (pixels.float() - torch.tensor(PIXEL_MEAN, **place)) / torch.tensor(PIXEL_STD, **place)
    rows = torch.arange(pixels.shape[1], **place) < valid_hw[:, :1]
    columns = torch.arange(pixels.shape[2], **place) < valid_hw[:, 1:]
    mask = rows[:, :, None] & columns[:, None]
    return torch.where(mask[..., None], scaled, 0.0).permute(0, 3, 1, 2).contiguous(), mask.long()


class TorchDetector:
    """transformers' detector looking at one view, as a PyTorch user runs it."""

    def __init__(self, model: Any, machine: Machine, compile_it: bool = False):
        import torch

        self.model, self.machine = torch.compile(model) if compile_it else model, machine

    def _run(self, view: np.ndarray, valid_hw: Sequence[int], input_ids: np.ndarray) -> tuple[Any, Any]:
        import torch

        device = self.machine.torch_device
        words = torch.from_numpy(input_ids).to(device)
        with torch.inference_mode(), self.machine.autocast():
            valid = torch.tensor([list(map(int, valid_hw))], device=device)
            pixels, mask = torch_input(torch.tensor(view)[None].to(device), valid)
            found = self.model(
                pixel_values=pixels, pixel_mask=mask, input_ids=words, attention_mask=torch.ones_like(words)
            )
            return found.pred_boxes[0].float(), found.logits[0].float().max(-1).values.sigmoid()

    def best(self, view: np.ndarray, valid_hw: Sequence[int], input_ids: np.ndarray) -> tuple[np.ndarray, float]:
        """The box cxcywh [4] whose best token scores highest, and that score, on the host.

        Args:
            view: uint8 [H, W, 3], content top left.
            valid_hw: height and width of the content.
            input_ids: int64 [1, T].
        """
        boxes, scores = self._run(view, valid_hw, input_ids)
        index = scores.argmax()
        return boxes[index].cpu().numpy(), float(scores[index])

    def all(self, view: np.ndarray, valid_hw: Sequence[int], input_ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Every box cxcywh [Q, 4] and its score [Q]."""
        boxes, scores = self._run(view, valid_hw, input_ids)
        return boxes.cpu().numpy(), scores.cpu().numpy()


def apart(
    box_xyxy: Sequence[float],
    score: float,
    crop_xyxy: Sequence[float],
    photo_hw: Sequence[int],
    theirs: tuple[np.ndarray, np.ndarray],
    tie: float,
) -> tuple[float, float]:
    """How far our answer is from the peer's: its box, in parts of the crop's longer side, and its score.

    Of boxes whose scores tie either may come first, so ours may be any of those that score as well as the best.

    Args:
        box_xyxy: ours, photo px.
        score: ours.
        crop_xyxy: where both looked, photo px.
        photo_hw: height and width of the photo.
        theirs: the peer's boxes cxcywh [Q, 4] in 0..1 of the crop, and scores [Q].
        tie: scores that differ by less tie.
    """
    boxes, scores = theirs
    low, high = np.asarray(crop_xyxy[:2]), np.asarray(crop_xyxy[2:])
    half = boxes[:, 2:] / 2
    lower, upper = (low + np.clip(boxes[:, :2] + sign * half, 0, 1) * (high - low) for sign in (-1, 1))
    size = np.maximum(upper - lower, LEAST_BOX_PX)  # as ours
    moved = np.clip((lower + upper - size) / 2, 0, np.asarray(photo_hw)[::-1] - size)
    in_photo = np.concatenate([moved, moved + size], axis=1)
    near = scores > scores.max() - tie
    away = np.abs(in_photo - np.asarray(box_xyxy)).max(axis=1)[near].min()
    return float(away / (high - low).max()), abs(float(scores.max()) - score)


def check_apart(box: float, score: float, dtype: str) -> str:
    """What ``apart`` gave in words; PizaError if it is too much for the dtype."""
    limits = LIMITS[dtype]
    return f"{check('box', box, limits[0])}, {check('score', score, limits[1])}"
