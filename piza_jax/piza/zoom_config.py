"""How to zoom: the settings of the zoom loop and of the beam."""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from piza_jax.errors import PizaError
from piza_jax.ops.crop import METHODS
from piza_jax.piza.boxes import LEAST_BOX_PX
from piza_jax.piza.learnt import LearntScore, as_learnt

MODES = ("piza", "training_free")
PATH_SCORES = ("mean_log", "product", "last")
LEARNT = "learnt"
# What a training configuration says of them, in its section zoom.
OF_TRAINING = ("stop_threshold", "margin", "score_layers", "last_look")


@dataclass(frozen=True)
class ZoomConfig:
    """How to zoom.

    Attributes:
        max_steps: most crops, N.
        stop_threshold: stop probability from which on a box is final (mode "piza").
        min_crop_px: least side of a crop, photo pixels; a smaller box is seen with its surroundings.
        margin: mode "piza": sides of the next crop over those of the box found, which it holds in its middle or, at the
            photo's edge, as near to that as it can; 1 crops the box itself, as the paper does.
        score_layers: boxes are chosen by the mean of the logits of so many last layers of the decoder, all if it has
            fewer; 1: of the last, as the paper does. Their sides are those of the last layer.
        canvas_hw: height and width that every crop is resized to (aspect kept, zeros around).
        mode: "piza", or "training_free" for a detector without PIZA weights.
        step_progress: training-free: how far, in logarithms of the side, a crop goes towards the box.
        context: training-free: least side of a crop, in longest sides of the box.
        tight: training-free: stop when the root of box area over crop area reaches this.
        crop_method: see ``ops.crop.crop_resize``.
        beam: how many paths are followed at once, K; 1 follows the best box only. See ``piza.beam``.
        path_score: by what paths are compared, from the scores of their boxes: "mean_log", their geometric mean;
            "product", their product, which favours short paths; "last", the last one, which forgets that the crop
            may be a wrong one. "learnt" compares the ends of paths by ``learnt``, and those on their way by its rule.
        nms_iou: two boxes that overlap more than this are one place, of which only the better one is followed.
        no_target_threshold: a best path with a lower path score than this (0..1) has found no target; 0: never.
        backtrack: a view whose best score is below this part (0..1) of the score of the box that led to it has found
            nothing: back to the crop before. 0: never.
        look_back: sides, over those of the photo, of wider views in which the ends of several paths are looked for
            again before they are compared, see ``piza.look_back``; none: they are not. One path has nothing to compare.
        look_back_weight: how much that counts: its power beside the path score.
        last_look: side of one more view around the box that the search ended on, over the box's longest side, see
            ``piza.locate``; 0: none.
        learnt: coefficients that piza tune found, see ``piza.learnt``; a mapping becomes one.
    """

    max_steps: int = 5
    stop_threshold: float = 0.95
    min_crop_px: float = 32.0
    margin: float = 1.0
    score_layers: int = 1
    canvas_hw: tuple[int, int] = (1024, 1024)
    mode: str = "piza"
    step_progress: float = 0.4
    context: float = 1.5
    tight: float = 0.25
    crop_method: str = "auto"
    beam: int = 1
    path_score: str = "mean_log"
    nms_iou: float = 0.5
    no_target_threshold: float = 0.0
    backtrack: float = 0.0
    look_back: tuple[float, ...] = ()
    look_back_weight: float = 0.6
    last_look: float = 0.0
    learnt: LearntScore | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "learnt", as_learnt(self.learnt))
        object.__setattr__(self, "look_back", tuple(self.look_back))
        if self.path_score == LEARNT and self.learnt is None:
            raise PizaError(
                "zoom.path_score 'learnt' needs coefficients: give --zoom=FILE, a file of piza tune that has some"
            )
        rules = (
            ("max_steps", self.max_steps >= 1, "at least 1"),
            ("stop_threshold", self.stop_threshold > 0, "above 0"),
            ("min_crop_px", self.min_crop_px >= LEAST_BOX_PX, f"at least {LEAST_BOX_PX}"),
            ("margin", 1 <= self.margin < math.inf, "at least 1"),
            ("score_layers", self.score_layers >= 1, "at least 1"),
            ("canvas_hw", len(self.canvas_hw) == 2 and min(self.canvas_hw) >= 1, "a height and a width"),
            ("mode", self.mode in MODES, f"one of {', '.join(MODES)}"),
            ("step_progress", 0 < self.step_progress < 1, "between 0 and 1"),
            ("context", self.context >= 1, "at least 1"),
            ("tight", 0 < self.tight <= 1, "above 0 and at most 1"),
            ("crop_method", self.crop_method in METHODS, f"one of {', '.join(METHODS)}"),
            ("beam", self.beam >= 1, "at least 1"),
            ("path_score", self.path_score in (*PATH_SCORES, LEARNT), f"one of {', '.join((*PATH_SCORES, LEARNT))}"),
            (
                "learnt",
                self.learnt is None or self.learnt.rule in PATH_SCORES,
                f"of a rule among {', '.join(PATH_SCORES)}",
            ),
            ("nms_iou", 0 < self.nms_iou < 1, "between 0 and 1"),
            ("no_target_threshold", 0 <= self.no_target_threshold <= 1, "from 0 to 1"),
            ("look_back", all(0 < side <= 1 for side in self.look_back), "sides above 0 and at most 1, or none"),
            ("look_back_weight", self.look_back_weight >= 0, "at least 0"),
            ("last_look", self.last_look == 0 or 1 <= self.last_look < math.inf, "at least 1, or 0 for none"),
            ("backtrack", 0 <= self.backtrack <= 1, "from 0 to 1"),
        )
        for name, good, wanted in rules:
            if not good:
                raise PizaError(f"zoom.{name} is {getattr(self, name)!r}; it must be {wanted}")

    @property
    def rule(self) -> str:
        """By what paths on their way are compared, one of PATH_SCORES."""
        return self.learnt.rule if self.learnt and self.path_score == LEARNT else self.path_score

    @property
    def one_path(self) -> bool:
        """Whether the best box of each view is all that is ever followed."""
        return self.beam == 1 and self.backtrack == 0


def zoom_config_of(config: Mapping[str, Any], **changes: Any) -> ZoomConfig:
    """The zoom that fits a training configuration (its canvas, step limit, least crop and section zoom), with changes.

    Raises:
        PizaError: an unknown or senseless field.
    """
    height, width = config["data"]["canvas_hw"]
    search = config.get("search", {})
    base = ZoomConfig(
        canvas_hw=(int(height), int(width)),
        max_steps=int(search.get("max_steps", ZoomConfig.max_steps)),
        min_crop_px=float(search.get("min_crop_px", ZoomConfig.min_crop_px)),
    )
    return changed(base, **{**config.get("zoom", {}), **changes})


def defaults_of_training() -> dict[str, Any]:
    """The section zoom of a training configuration, as in the paper and its release."""
    return {name: getattr(ZoomConfig, name) for name in OF_TRAINING}


def changed(config: ZoomConfig, **changes: Any) -> ZoomConfig:
    """A configuration with other values in some fields; PizaError for an unknown or senseless one."""
    known = config.__dataclass_fields__
    if unknown := sorted(set(changes) - set(known)):
        raise PizaError(f"unknown zoom option {', '.join(unknown)}; known are {', '.join(known)}")
    return dataclasses.replace(config, **changes)
