"""Ways to look at a photo, each named by one word, such as ``sliding:1024:0.2:full:nms``."""

import re
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from piza_jax.errors import PizaError
from piza_jax.evaluation import slices
from piza_jax.ops.nms import METRICS

FORMS = (
    "piza",
    "training_free",
    "single[:SHORT_SIDE]",
    "grid:ROWSxCOLUMNS[:OPTION...]",
    "sliding:SIDE[:OVERLAP][:OPTION...]",
)
MERGING = ("score", "nms", "nmm")
_OPTIONS = ("full", *MERGING, *(f"{metric}=0.5" for metric in METRICS), "min_score=0.3")


@dataclass(frozen=True)
class Slicing:
    """Where to cut photos, and what becomes of the boxes found in the slices.

    Attributes:
        rows: of a tile grid; 0: a sliding window.
        columns: of a tile grid.
        window_wh: width and height of the sliding window, photo pixels.
        overlap: of neighbouring windows, a share of the window's side.
        full: look at the whole photo as well, after the slices.
        merging: "score" ranks all boxes by score; "nms" drops those that match a better one; "nmm" drops them too, and
            the better one grows to the hull of both. The best box is the same by score and by NMS, which only tidies
            the ranking below it.
        metric: of a match: "iou" or "ios", see ops.nms.matching.
        threshold: overlap from which on boxes match.
        min_score: boxes below do not take part in NMS and NMM, 0..1; the best one always does.
    """

    rows: int = 0
    columns: int = 0
    window_wh: tuple[int, int] = (1024, 1024)
    overlap: float = 0.2
    full: bool = False
    merging: str = "score"
    metric: str = "ios"
    threshold: float = 0.5
    min_score: float = 0.3

    def __post_init__(self) -> None:
        self.boxes((1, 1))  # refuses what cannot be cut
        rules = (
            ("merging", self.merging in MERGING, f"one of {', '.join(MERGING)}"),
            ("metric", self.metric in METRICS, f"one of {', '.join(METRICS)}"),
            ("threshold", 0 < self.threshold <= 1, "above 0 and at most 1"),
            ("min_score", 0 <= self.min_score <= 1, "in 0..1"),
        )
        for name, good, wanted in rules:
            if not good:
                raise PizaError(f"slicing: {name} is {getattr(self, name)!r}; it must be {wanted}")

    def boxes(self, photo_wh: tuple[int, int]) -> np.ndarray:
        """Slices of a photo of this width and height, int32 [S, 4], xyxy photo pixels; none of them twice."""
        if self.rows or self.columns:
            cut = slices.grid(photo_wh, self.rows, self.columns)
        else:
            cut = slices.sliding(photo_wh, self.window_wh, self.overlap)
        if self.full and len(cut) > 1:
            cut = np.concatenate([cut, slices.whole(photo_wh)])
        return cut


@dataclass(frozen=True)
class Method:
    """A way to look at photos.

    Attributes:
        word: its name, as given.
        kind: "piza", "training_free", "single" or "slices".
        short_side: of a single pass, pixels that the photo's short side is resized to; None: as the detector wants it.
        slicing: of slices.
    """

    word: str
    kind: str
    short_side: int | None = None
    slicing: Slicing | None = None


def method_of(word: str) -> Method:
    """Read the word that names a method.

    Args:
        word: one of FORMS. Options of slices are ``full``, one of MERGING, ``iou=T`` or ``ios=T`` (metric and threshold
            of a match) and ``min_score=T``. A SIDE may be WIDTHxHEIGHT.

    Raises:
        PizaError: a word of no such form, or numbers out of range.
    """
    kind, *parts = word.split(":")
    if kind in ("piza", "training_free") and not parts:
        return Method(word, kind)
    if kind == "single" and len(parts) <= 1:
        return Method(word, kind, short_side=_positive(word, parts[0]) if parts else None)
    if kind == "grid" and parts:
        rows, columns = _pair(word, parts[0])
        return Method(word, "slices", slicing=_with_options(word, Slicing(rows=rows, columns=columns), parts[1:]))
    if kind == "sliding" and parts:
        changes: dict[str, Any] = {"window_wh": _pair(word, parts.pop(0))}
        if parts and (overlap := _number(parts[0])) is not None:
            changes["overlap"] = overlap
            parts.pop(0)
        return Method(word, "slices", slicing=_with_options(word, Slicing(**changes), parts))
    raise PizaError(f"there is no method {word!r}; known are {', '.join(FORMS)}")


def _with_options(word: str, slicing: Slicing, options: list[str]) -> Slicing:
    changes: dict[str, Any] = {}
    for option in options:
        name, _, text = option.partition("=")
        value = _number(text)
        new: dict[str, Any] = {}
        if option == "full":
            new = {"full": True}
        elif option in MERGING:
            new = {"merging": option}
        elif name in METRICS and value is not None:
            new = {"metric": name, "threshold": value}
        elif name == "min_score" and value is not None:
            new = {"min_score": value}
        if not new:
            raise PizaError(f"method {word!r}: unknown option {option!r}; known are {', '.join(_OPTIONS)}")
        if set(new) & set(changes):
            raise PizaError(f"method {word!r}: {option!r} says again what an option before it said; leave one of them")
        changes |= new
    return replace(slicing, **changes)


def _number(text: str) -> float | None:
    return float(text) if re.fullmatch(r"\d+(\.\d*)?|\.\d+", text) else None


def _positive(word: str, text: str) -> int:
    if not re.fullmatch(r"0*[1-9]\d*", text):
        raise PizaError(f"method {word!r}: {text!r} is no whole number above 0")
    return int(text)


def _pair(word: str, text: str) -> tuple[int, int]:
    """Two numbers "AxB", or one for both."""
    first, _, second = text.partition("x")
    one = _positive(word, first)
    return one, _positive(word, second) if "x" in text else one
