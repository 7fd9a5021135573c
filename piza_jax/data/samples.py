"""One record to training samples: crop, label in the crop's frame, history, progress, stop."""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from piza_jax.data.decode import Decoded, photo_size
from piza_jax.data.photo_cache import PHOTOS
from piza_jax.data.search import SearchConfig, check_box, ideal_boxes, progress, search_boxes
from piza_jax.data.tokenize import Tokenizer
from piza_jax.data.views import make_view, photo_to_view, view_needs
from piza_jax.errors import PizaError


@dataclass(frozen=True)
class SampleConfig:
    """How records become samples.

    Attributes:
        canvas_hw: height and width of the static canvas.
        max_tokens: length L of the token ids.
        search: the search process.
        stop_fraction: part of the samples that are stop samples (t = T); None draws t from 0..T evenly. The other
            samples are spread evenly over t in 0..T-1.
        scale_range: the content is rendered at a random size between these fractions of the largest that fits the
            canvas; (1.0, 1.0) is off. It stands for the recipe's random short side of 480..800 (long side at most
            1333): on a canvas made for 800 that is (0.6, 1.0), drawn evenly instead of from 11 sizes. The recipe's
            other branch, a random crop, has no counterpart: crops are what the search makes.
        scaled_decode: random samples decode no more of a JPEG than their view needs: at 1/2, 1/4 or 1/8 of its
            resolution where the view is much smaller, which changes its pixels a little, and down to its last row,
            which changes nothing.
    """

    canvas_hw: tuple[int, int] = (1024, 1024)
    max_tokens: int = 256
    search: SearchConfig = field(default_factory=SearchConfig)
    stop_fraction: float | None = None
    scale_range: tuple[float, float] = (1.0, 1.0)
    scaled_decode: bool = True

    def __post_init__(self) -> None:
        if len(self.canvas_hw) != 2 or min(self.canvas_hw) < 1:
            raise PizaError(f"canvas_hw is {self.canvas_hw}; it must be a height and a width of at least 1")
        if self.stop_fraction is not None and not 0 <= self.stop_fraction <= 1:
            raise PizaError(f"stop_fraction is {self.stop_fraction}; it must be in 0..1, or None for an even choice")
        if not 0 < self.scale_range[0] <= self.scale_range[1] <= 1:
            raise PizaError(f"scale_range is {self.scale_range}; it must be two ascending numbers above 0, up to 1")


def random_sample(
    record: Mapping[str, Any],
    tokenizer: Tokenizer,
    config: SampleConfig,
    rng: np.random.Generator,
    *,
    shared: bool = False,
) -> dict[str, Any]:
    """One training sample (photo, expression, t) of a record, t and jitter drawn from rng.

    Args:
        record: "image" (encoded bytes), "name", "id", "expression", "box_xyxy" [4] photo pixels.
        tokenizer: makes the token ids.
        config: how to make samples.
        rng: the only source of chance.
        shared: other samples of the photo follow, so that it is better decoded down to its end.

    Returns:
        image uint8 [H, W, 3], content top left, zero elsewhere; valid_hw int32 [2]; input_ids int32 [L]; token_mask
        bool [L]; target_box float32 [4] cxcywh in 0..1 of the content, the next zoom box (0 in stop samples); final_box
        float32 [4], the same of the box that the search ends on; has_target bool; history
        float32 [S, 4] xyxy photo pixels, b_0..b_t then zeros; history_mask bool [S]; progress float32, p_t; stop
        float32, 1 in the stop sample t = T, whose image is the crop of the target itself; id int32.

    Raises:
        PizaError: names the record: damaged photo, bad box, empty or too long expression.
    """
    with naming(record):
        size = photo_size(record["image"], record["name"])
        boxes, labels = _search(record, size, config, rng)
        step = _draw_step(len(boxes) - 1, config.stop_fraction, rng)
        scale = float(rng.uniform(*config.scale_range))
        factor, rows = view_needs(boxes[step], config.canvas_hw, scale, size) if config.scaled_decode else (1, None)
        photo = PHOTOS.get(record["image"], record["name"], factor, None if shared else rows)
        return _sample(record, photo, boxes, labels, step, scale, tokenizer, config)


def sample_fields(config: SampleConfig) -> dict[str, tuple[tuple[int, ...], type[np.generic]]]:
    """Shape and dtype of each field of a sample, see random_sample: they depend on nothing but the configuration."""
    steps, tokens = config.search.history_length, config.max_tokens
    return {
        "image": ((*config.canvas_hw, 3), np.uint8),
        "valid_hw": ((2,), np.int32),
        "input_ids": ((tokens,), np.int32),
        "token_mask": ((tokens,), np.bool_),
        "target_box": ((4,), np.float32),
        "final_box": ((4,), np.float32),
        "has_target": ((), np.bool_),
        "history": ((steps, 4), np.float32),
        "history_mask": ((steps,), np.bool_),
        "progress": ((), np.float32),
        "stop": ((), np.float32),
        "id": ((), np.int32),
    }


def all_samples(
    record: Mapping[str, Any], tokenizer: Tokenizer, config: SampleConfig, rng: np.random.Generator
) -> list[dict[str, Any]]:
    """The T + 1 samples of one search of a record, t = 0..T, the last the stop sample, at full content size.

    The photo is decoded whole. Arguments, fields and errors as random_sample.
    """
    with naming(record):
        photo = PHOTOS.get(record["image"], record["name"])
        boxes, labels = _search(record, photo.size, config, rng)
        return [_sample(record, photo, boxes, labels, t, 1.0, tokenizer, config) for t in range(len(boxes))]


@contextlib.contextmanager
def naming(record: Mapping[str, Any]) -> Iterator[None]:
    """Puts the record's id and photo before the message of a PizaError."""
    try:
        yield
    except PizaError as error:
        raise PizaError(f"record {int(record['id'])} ({record['name']}): {error}") from error


def _search(
    record: Mapping[str, Any], size: tuple[int, int], config: SampleConfig, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    target = check_box(record["box_xyxy"], size)
    return search_boxes(size, target, rng, config.search), ideal_boxes(size, target, config.search)


def _draw_step(num_steps: int, stop_fraction: float | None, rng: np.random.Generator) -> int:
    if stop_fraction is None:
        return int(rng.integers(num_steps + 1))
    return num_steps if rng.random() < stop_fraction else int(rng.integers(num_steps))


def _sample(
    record: Mapping[str, Any],
    photo: Decoded,
    boxes: np.ndarray,
    labels: np.ndarray,
    step: int,
    scale: float,
    tokenizer: Tokenizer,
    config: SampleConfig,
) -> dict[str, Any]:
    stop = step == len(boxes) - 1
    crop = boxes[step]
    image, valid_hw = make_view(photo, crop, config.canvas_hw, scale)
    target_box = np.zeros(4, np.float32) if stop else photo_to_view(labels[step + 1], crop)
    history = np.zeros((config.search.history_length, 4), np.float32)
    history[: step + 1] = boxes[: step + 1]
    input_ids, token_mask = tokenizer.encode(record["expression"], config.max_tokens)
    return {
        "image": image,
        "valid_hw": valid_hw,
        "input_ids": input_ids,
        "token_mask": token_mask,
        "target_box": target_box,
        "final_box": photo_to_view(labels[-1], crop),
        "has_target": np.bool_(not stop),
        "history": history,
        "history_mask": np.arange(len(history)) <= step,
        "progress": progress(boxes)[step],
        "stop": np.float32(stop),
        "id": np.int32(record["id"]),
    }
