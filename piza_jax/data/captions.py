"""Several phrases of one picture in one caption, each with its boxes: how a plain detector is pre-trained.

GroundingDINO reads a caption as sub-sentences between full stops that do not see each other (Liu et al. 2023, section
3.4), and its own pre-training uses that: one pass over a picture learns from all that is said of it.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from piza_jax.data.decode import photo_size
from piza_jax.data.photo_cache import PHOTOS
from piza_jax.data.samples import naming
from piza_jax.data.tokenize import Tokenizer
from piza_jax.data.views import make_view, photo_to_view, view_needs
from piza_jax.errors import PizaError


@dataclass(frozen=True)
class Mention:
    """What a sentence names beside its target, "the red van" of "the cone left of the red van".

    Attributes:
        start: first character of the name in the sentence.
        end: the character after its last.
        boxes_xyxy: of what is named, xyxy pixels.
    """

    start: int
    end: int
    boxes_xyxy: tuple[tuple[float, float, float, float], ...]


@dataclass(frozen=True)
class Phrase:
    """A sentence or a name, and every box of the picture that it is true of.

    Attributes:
        text: what is said.
        boxes_xyxy: xyxy pixels; none where it is true of nothing.
        weight: how much rather than a phrase of weight 1 it comes into a caption.
        mentions: what else it names.
    """

    text: str
    boxes_xyxy: tuple[tuple[float, float, float, float], ...]
    weight: float = 1.0
    mentions: tuple[Mention, ...] = ()


@dataclass(frozen=True)
class CaptionConfig:
    """How the phrases of a picture become captions.

    Attributes:
        canvas_hw: height and width of the static canvas.
        max_tokens: length L of the token ids.
        max_boxes: most targets of a caption, G.
        min_phrases: least phrases of a caption, where there is room for them.
        max_phrases: most phrases of a caption; the number is drawn between the two.
        mentions: query selection learns to choose what sentences mention too, so that the decoder can compare a target
            with it. Without that nothing in an image stands for the van of "the cone left of the red van".
        sentence_weight: how much oftener phrases that are whole sentences are chosen than their own weight says.
        scale_range: random size of the content, as in samples.SampleConfig.
        scaled_decode: as in samples.SampleConfig.
    """

    canvas_hw: tuple[int, int] = (1024, 1024)
    max_tokens: int = 256
    max_boxes: int = 16
    min_phrases: int = 1
    max_phrases: int = 8
    mentions: bool = False
    sentence_weight: float = 1.0
    scale_range: tuple[float, float] = (1.0, 1.0)
    scaled_decode: bool = True

    def __post_init__(self) -> None:
        for name in ("max_tokens", "max_boxes", "min_phrases", "max_phrases"):
            if getattr(self, name) < 1:
                raise PizaError(f"captions.{name} is {getattr(self, name)}; it must be at least 1")
        if not 0 < self.sentence_weight < math.inf:
            raise PizaError(f"captions.sentence_weight is {self.sentence_weight}; it must be a number above 0")
        if self.min_phrases > self.max_phrases:
            raise PizaError(f"captions.min_phrases is {self.min_phrases}, more than max_phrases {self.max_phrases}")


def random_caption(
    record: Mapping[str, Any], tokenizer: Tokenizer, config: CaptionConfig, rng: np.random.Generator
) -> dict[str, Any]:
    """One training sample of a picture: some of its phrases in any order, as many as there is room for.

    Args:
        record: "image" (encoded bytes), "name", "id", and "phrases", a sequence of Phrase with one that has a box.
        tokenizer: makes the token ids.
        config: how to make captions.
        rng: the only source of chance.

    Returns:
        image uint8 [H, W, 3], content top left, zero elsewhere; valid_hw int32 [2]; input_ids int32 [L]; token_mask
        bool [L]; target_boxes float32 [G, 4] cxcywh in 0..1 of the content, zeros after the last; target_valid bool
        [G]; positive bool [G, L], the tokens of all phrases that are true of the target; mentioned bool [G, L], the
        tokens that name the box in sentences about others, also where target_valid is False; id int32.

    Raises:
        PizaError: names the record: damaged photo, or no phrase that fits.
    """
    with naming(record):
        size = photo_size(record["image"], record["name"])
        whole, scale = np.array([0, 0, *size], np.float32), float(rng.uniform(*config.scale_range))
        factor = view_needs(whole, config.canvas_hw, scale, size)[0] if config.scaled_decode else 1
        photo = PHOTOS.get(record["image"], record["name"], factor)
        image, valid_hw = make_view(photo, whole, config.canvas_hw, scale)
        chosen = _choose(record["phrases"], tokenizer, config, rng)
        input_ids, token_mask, spans = _join([tokens for _, tokens in chosen], tokenizer, config.max_tokens)
        phrases = [phrase for phrase, _ in chosen]
        rows, positive = _targets(phrases, spans, config)
        boxes, mentioned = list(rows), np.zeros_like(positive)
        if config.mentions:
            boxes, mentioned = _mentioned(phrases, spans, rows, tokenizer, config)
    target_boxes = np.zeros((config.max_boxes, 4), np.float32)
    target_boxes[: len(boxes)] = photo_to_view(np.asarray(boxes, np.float32).reshape(-1, 4), whole)
    return {
        "image": image,
        "valid_hw": valid_hw,
        "input_ids": input_ids,
        "token_mask": token_mask,
        "target_boxes": target_boxes,
        "target_valid": positive.any(axis=1),
        "positive": positive,
        "mentioned": mentioned,
        "id": np.int32(record["id"]),
    }


def caption_fields(config: CaptionConfig) -> dict[str, tuple[tuple[int, ...], type[np.generic]]]:
    """Shape and dtype of each field of a sample, see random_caption: they depend on nothing but the configuration."""
    tokens, boxes = config.max_tokens, config.max_boxes
    return {
        "image": ((*config.canvas_hw, 3), np.uint8),
        "valid_hw": ((2,), np.int32),
        "input_ids": ((tokens,), np.int32),
        "token_mask": ((tokens,), np.bool_),
        "target_boxes": ((boxes, 4), np.float32),
        "target_valid": ((boxes,), np.bool_),
        "positive": ((boxes, tokens), np.bool_),
        "mentioned": ((boxes, tokens), np.bool_),
        "id": ((), np.int32),
    }


def _choose(
    phrases: Sequence[Phrase], tokenizer: Tokenizer, config: CaptionConfig, rng: np.random.Generator
) -> list[tuple[Phrase, np.ndarray]]:
    """Phrases with their tokens (without [CLS] and [SEP]) that fit, one with a box first of all, then shuffled."""
    count = int(rng.integers(config.min_phrases, config.max_phrases + 1))
    factors = [config.sentence_weight if phrase.text.endswith(".") else 1.0 for phrase in phrases]
    waits = rng.exponential(size=len(phrases)) / [phrase.weight * f for phrase, f in zip(phrases, factors, strict=True)]
    order = [phrases[place] for place in np.argsort(waits)]
    first = next((place for place, phrase in enumerate(order) if phrase.boxes_xyxy), 0)
    order.insert(0, order.pop(first))
    tokens_left, boxes_left = config.max_tokens - 2, config.max_boxes
    chosen: list[tuple[Phrase, np.ndarray]] = []
    for phrase in order:
        input_ids, token_mask = tokenizer.encode(phrase.text, config.max_tokens)
        tokens = input_ids[token_mask][1:-1]
        if len(tokens) <= tokens_left and len(phrase.boxes_xyxy) <= boxes_left:
            chosen.append((phrase, tokens))
            tokens_left -= len(tokens)
            boxes_left -= len(phrase.boxes_xyxy)
        if len(chosen) == count:
            break
    if not any(phrase.boxes_xyxy for phrase, _ in chosen):
        raise PizaError(
            f"no phrase with a box fits {config.max_boxes} boxes and {config.max_tokens} tokens; raise "
            "captions.max_boxes or data.max_tokens"
        )
    return [chosen[place] for place in rng.permutation(len(chosen))]


def _join(
    pieces: Sequence[np.ndarray], tokenizer: Tokenizer, max_tokens: int
) -> tuple[np.ndarray, np.ndarray, list[tuple[int, int]]]:
    """[CLS] and all pieces and [SEP]; ids [L], mask [L], and where each phrase is, its full stop left out."""
    start, end = tokenizer.delimiter_ids[:2]
    input_ids = np.zeros(max_tokens, np.int32)
    input_ids[0] = start
    spans, place = [], 1
    for tokens in pieces:
        input_ids[place : place + len(tokens)] = tokens
        spans.append((place, place + len(tokens) - 1))
        place += len(tokens)
    input_ids[place] = end
    return input_ids, np.arange(max_tokens) <= place, spans


def _targets(
    phrases: Sequence[Phrase], spans: Sequence[tuple[int, int]], config: CaptionConfig
) -> tuple[dict[tuple[float, float, float, float], int], np.ndarray]:
    """Rows of all boxes, one each, and the tokens of every phrase that is true of it, bool [G, L]."""
    positive = np.zeros((config.max_boxes, config.max_tokens), bool)
    rows: dict[tuple[float, float, float, float], int] = {}
    for phrase, (start, end) in zip(phrases, spans, strict=True):
        for box in phrase.boxes_xyxy:
            positive[rows.setdefault(box, len(rows)), start:end] = True
    return rows, positive


def _mentioned(
    phrases: Sequence[Phrase],
    spans: Sequence[tuple[int, int]],
    rows: Mapping[tuple[float, float, float, float], int],
    tokenizer: Tokenizer,
    config: CaptionConfig,
) -> tuple[list[tuple[float, float, float, float]], np.ndarray]:
    """All boxes with those of what is mentioned, as many as there is room for, and the tokens of the latter [G, L]."""
    mentioned, rows = np.zeros((config.max_boxes, config.max_tokens), bool), dict(rows)

    def count(text: str) -> int:  # without [CLS], [SEP] and the full stop that ends every text
        return int(tokenizer.encode(f"{text}.", config.max_tokens)[1].sum()) - 3

    for phrase, (start, _) in zip(phrases, spans, strict=True):
        for mention in phrase.mentions:
            first, end = count(phrase.text[: mention.start]), count(phrase.text[: mention.end])
            for box in mention.boxes_xyxy:
                if box in rows or len(rows) < config.max_boxes:
                    mentioned[rows.setdefault(box, len(rows)), start + first : start + end] = True
    return list(rows), mentioned
