"""Phrase mode: every box that a list of phrases names, with its label, by the rules of GroundingDINO's processor."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from piza_jax.data.tokenize import with_full_stop
from piza_jax.errors import PizaError
from piza_jax.piza.single_pass import Look

Text = str | Sequence[str | Sequence[str]]


@dataclass(frozen=True)
class PhraseDetections:
    """The boxes of a photo; N of them, in the order of the detector's queries, which is not that of their scores.

    Attributes:
        text: the phrases as the tokenizer gets them.
        boxes: float32 [N, 4], xyxy photo pixels; they may stick out of the photo.
        scores: float32 [N], 0..1, of each box's best token.
        labels: of each box, the words that score high enough; "" where the box does and none of its words.
    """

    text: str
    boxes: np.ndarray = field(repr=False)
    scores: np.ndarray = field(repr=False)
    labels: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)

    def to_dict(self) -> dict[str, Any]:
        """Plain dict, ready for JSON."""
        found = [
            {"label": label, "score": float(score), "box": [float(side) for side in box]}
            for label, score, box in zip(self.labels, self.scores, self.boxes, strict=True)
        ]
        return {"text": self.text, "detections": found}


def merge_labels(labels: Iterable[str]) -> str:
    """Labels without full stops, such as ["A cat", "a dog"], as "a cat. a dog."; PizaError on an empty one."""
    merged = [label.strip().lower() for label in labels]
    if not all(merged):
        raise PizaError(f"the labels {merged} hold an empty one; say what to look for or leave it out")
    return ". ".join(merged) + "."


def texts_of(text: Text) -> list[str]:
    """The texts that a caller means, one for each photo or one for all.

    Args:
        text: phrases with full stops between them ("a cat. a remote control."); or a list of labels, none of which
            holds a full stop, for one text; or a list of either of these, one for each photo.

    Returns:
        Texts that end with a full stop.

    Raises:
        PizaError: no text, or an empty label.
    """
    if isinstance(text, str):
        return [with_full_stop(text).strip()]
    items = list(text)
    if not items:
        raise PizaError("there is no text; say what to look for")
    if all(isinstance(item, str) and "." not in item for item in items):
        return [merge_labels(str(item) for item in items)]
    return [one for item in items for one in texts_of(item)]


def check_thresholds(box_threshold: float, text_threshold: float, max_detections: int | None) -> None:
    """PizaError where a threshold is outside 0..1 or max_detections below 1."""
    for name, value in (("box_threshold", box_threshold), ("text_threshold", text_threshold)):
        if not 0 <= value <= 1:
            raise PizaError(f"{name} is {value}; it must be in 0..1")
    if max_detections is not None and max_detections < 1:
        raise PizaError(f"max_detections is {max_detections}; it must be at least 1, or None for all")


def select(
    look: Look,
    photo_hw: tuple[int, int],
    text: str,
    input_ids: np.ndarray,
    decode: Callable[[list[int]], str],
    box_threshold: float,
    text_threshold: float,
    max_detections: int | None = None,
) -> PhraseDetections:
    """The boxes that score high enough, with labels of the tokens that do.

    Neither the first token ([CLS]) nor the last of the L can be in a label; full stops and [SEP] can, as in the source.

    Args:
        look: what the detector says.
        photo_hw: height and width of the photo, pixels.
        text: of the result.
        input_ids: int [L], the tokens.
        decode: token ids -> text.
        box_threshold: a box is kept when its best token's score is above it.
        text_threshold: a token is in the label of a kept box when its score is above it.
        max_detections: keep only so many, the best; None keeps all.
    """
    with np.errstate(over="ignore"):  # exp of a large number is inf, and the score then 0, as it should be
        probabilities = 1 / (1 + np.exp(-look.logits))  # [Q, L]
    scores = probabilities.max(axis=-1)
    kept = np.flatnonzero(scores > box_threshold)
    if max_detections is not None and len(kept) > max_detections:
        kept = np.sort(kept[np.argsort(-scores[kept], kind="stable")[:max_detections]])
    high = probabilities[kept] > text_threshold
    high[:, [0, -1]] = False
    labels = tuple(decode(input_ids[: high.shape[1]][row].tolist()) for row in high)
    centre, half = look.boxes[kept, :2], 0.5 * look.boxes[kept, 2:]
    scale = np.array([photo_hw[1], photo_hw[0]] * 2, np.float32)
    boxes = np.concatenate([centre - half, centre + half], axis=-1) * scale
    return PhraseDetections(text, boxes, scores[kept], labels)
