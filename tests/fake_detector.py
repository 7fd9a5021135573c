"""A detector that finds the patch of one colour by looking at the pixels: small, exact and quick."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from PIL import Image

from piza_jax.convert.load import Loaded
from piza_jax.data.tokenize import Tokenizer
from piza_jax.ops.images import PIXEL_MEAN, PIXEL_STD

COLOURS = ("red", "green", "blue")
TEXT_CALLS = []  # one entry each time encode_text runs on the host's side of a call


class Text(NamedTuple):
    channel: jax.Array  # int32 [B]


class Reading(NamedTuple):
    stop_probability: jax.Array
    progress: jax.Array


class Found(NamedTuple):
    logits: jax.Array
    boxes: jax.Array


class PatchDetector(nnx.Module):
    """Box of the pixels of the colour asked for, with a margin of some view pixels that shrinks with the progress."""

    def __init__(self, colour_ids: tuple[int, ...], margin: float = 5.0, stop_bias: float = 0.0):
        self.colour_ids = colour_ids
        self.margin = nnx.Param(jnp.float32(margin))
        self.stop_bias = nnx.Param(jnp.float32(stop_bias))

    def encode_text(self, input_ids, token_mask):
        jax.debug.callback(lambda: TEXT_CALLS.append(1))
        return Text(jnp.argmax(input_ids[:, 1:2] == jnp.array(self.colour_ids), axis=1))

    def read_history(self, boxes_xyxy, mask):
        sides = jnp.prod(boxes_xyxy[..., 2:] - boxes_xyxy[..., :2], axis=-1) ** 0.5  # [B, S]
        last = jnp.sum(mask, axis=1, keepdims=True) - 1
        side = jnp.take_along_axis(sides, last, axis=1)[:, 0]
        before = jnp.take_along_axis(sides, jnp.maximum(last - 1, 0), axis=1)[:, 0]
        progress = jnp.log(sides[:, 0] / side) / jnp.log(sides[:, 0] / 20.0)
        # Final once a box is nearly as large as the one before; that is so at b_0 too, where nothing may stop.
        stop = jax.nn.sigmoid(40.0 * (side / before - 0.6 + self.stop_bias[...]))
        return Reading(stop, jnp.clip(progress, 0.0, 1.0))

    def detect(self, images, valid_hw, text, progress=None):
        box, top, _ = self.find(images, valid_hw, text.channel, progress)
        other = jnp.full_like(box, 0.5)
        boxes = jnp.stack([other, box, other], axis=1)  # [B, 3, 4]
        return _found(jnp.stack([top * 0, top / 64, top * 0 - 1], axis=1), boxes)

    def find(self, images, valid_hw, channel, progress):
        """Box [B, 4] around the patch of a channel [B], its strongest colour [B] and its part of the view's side."""
        pixels = images * PIXEL_STD + PIXEL_MEAN
        wanted = jnp.take_along_axis(pixels, channel[:, None, None, None], axis=3)[..., 0]
        colour = 1.5 * wanted - 0.5 * jnp.sum(pixels, axis=3)  # [B, H, W]
        rows, columns = jnp.arange(images.shape[1]) + 0.5, jnp.arange(images.shape[2]) + 0.5
        valid = (rows < valid_hw[:, :1])[:, :, None] & (columns < valid_hw[:, 1:])[:, None, :]
        colour = jnp.where(valid, colour, -jnp.inf)
        top = jnp.max(colour, axis=(1, 2))
        patch = colour > 0.5 * top[:, None, None]
        margin = self.margin[...] * (1.0 if progress is None else 1.0 - progress)
        low_y, high_y = _extent(jnp.any(patch, axis=2), rows, margin)
        low_x, high_x = _extent(jnp.any(patch, axis=1), columns, margin)
        size = valid_hw[:, ::-1].astype(jnp.float32)
        low, high = jnp.stack([low_x, low_y], 1) / size, jnp.stack([high_x, high_y], 1) / size
        part = (jnp.maximum(high_x - low_x, high_y - low_y) - 2 * margin) / jnp.max(size, axis=1)
        return jnp.concatenate([(low + high) / 2, high - low], axis=1), top, part


class DecoyDetector(PatchDetector):
    """Wrong at first sight: from afar, the patch of the next colour scores higher than that of the colour asked for.

    Near, the decoy's score falls and the target's rises. Each patch is found twice, by boxes that are nearly the same.
    """

    def detect(self, images, valid_hw, text, progress=None):
        boxes, scores = [], []
        for channel, afar, near in ((text.channel, 0.7, 0.95), ((text.channel + 1) % 3, 0.9, 0.2)):
            box, top, part = self.find(images, valid_hw, channel, progress)
            score = jnp.where(top > 60, jnp.where(part > 0.08, near, afar), 0.02)
            boxes += [box, box + jnp.array([0.002, 0.0, 0.0, 0.0])]
            scores += [score, score - 0.01]
        scores = jnp.stack(scores, axis=1)
        return _found(jnp.log(scores / (1 - scores)), jnp.stack(boxes, axis=1))


class Quiet(DecoyDetector):
    """Without the call of the host, which no program can hold that is stored."""

    def encode_text(self, input_ids, token_mask):
        return Text(jnp.argmax(input_ids[:, 1:2] == jnp.array(self.colour_ids), axis=1))


class FiniteDetector(DecoyDetector):
    """A view without any pixel of the colour has some box, with a low score."""

    def detect(self, images, valid_hw, text, progress=None):
        found = super().detect(images, valid_hw, text, progress)
        return Found(found.logits, jnp.where(jnp.isfinite(found.boxes), found.boxes, 0.5))


@dataclass(frozen=True)
class Config:
    history: bool = True


def loaded(kind=FiniteDetector, margin=0.0, **zoom) -> Loaded:
    """A detector with its tokenizer, as a checkpoint gives them."""
    tokenizer = make_tokenizer()
    model = kind(tuple(int(tokenizer.encode(colour, 8)[0][1]) for colour in COLOURS), margin=margin)
    model.config = Config()
    return Loaded(model, tokenizer, max_tokens=8, zoom=zoom, method="piza")


def _found(logits, boxes):
    """Of one layer, with a token that is padding."""
    logits = logits[..., None]
    return Found(jnp.concatenate([logits, jnp.full_like(logits, -jnp.inf)], axis=2)[None], boxes[None])


def _extent(any_line, positions, margin):
    low = jnp.min(jnp.where(any_line, positions - 0.5, jnp.inf), axis=1)
    high = jnp.max(jnp.where(any_line, positions + 0.5, -jnp.inf), axis=1)
    return low - margin, high + margin


def make_tokenizer() -> Tokenizer:
    return Tokenizer.train([f"{colour} patch here" for colour in COLOURS], 60)


def draw_patches(seed: int, width: int, height: int, side: int = 12):
    """Dull noise with one patch of each colour: uint8 [H, W, 3] and {colour: box xyxy}."""
    rng = np.random.default_rng(seed)
    photo = rng.integers(90, 130, (height, width, 1), dtype=np.uint8).repeat(3, axis=2)
    boxes = {}
    columns = rng.permutation(3)
    for channel, colour in enumerate(COLOURS):  # one third of the width each, so that patches never overlap
        x = int(columns[channel] * width // 3 + rng.integers(2, width // 3 - side - 2))
        y = int(rng.integers(2, height - side - 2))
        photo[y : y + side, x : x + side] = 20
        photo[y : y + side, x : x + side, channel] = 250
        boxes[colour] = (x, y, x + side, y + side)
    return photo, boxes


def write_records(folder: Path, sizes) -> list[str]:
    """Photos of these widths and heights, a sentence each: options that evaluate on them as the split "made"."""
    records = []
    for number, (width, height) in enumerate(sizes):
        photo, boxes = draw_patches(number, width, height)
        Image.fromarray(photo).save(folder / f"{number}.png")
        x0, y0, x1, y1 = boxes[colour := COLOURS[number % 3]]
        bbox = [x0, y0, x1 - x0, y1 - y0]
        records.append({"image": f"{number}.png", "bbox": bbox, "ref": f"{colour} patch here", "id": number})
    (folder / "made.json").write_text(json.dumps(records))
    return [f"--annotations={folder}/made.json", f"--images={folder}"]
