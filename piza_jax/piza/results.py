"""What grounding gives: the box of an expression and the steps that led to it."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from piza_jax.piza.single_pass import Look
from piza_jax.piza.zoom import Beam, ZoomResult

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Step:
    """One step of a zoom; boxes are xyxy photo pixels.

    Attributes:
        crop: where the detector looked.
        box: what it found there.
        score: score of that box, 0..1.
        progress: how far the zoom had come at that crop, about 0 (whole photo) to 1 (on the target).
        stop_probability: that the box is final.
    """

    crop: Box
    box: Box
    score: float
    progress: float
    stop_probability: float


@dataclass(frozen=True)
class Alternative:
    """Where another path of a beam ended.

    Attributes:
        box: xyxy photo pixels.
        score: of that box, 0..1.
        path_score: what paths were compared by, 0..1.
    """

    box: Box
    score: float
    path_score: float


@dataclass(frozen=True)
class Grounding:
    """What a photo shows of an expression.

    Attributes:
        expression: the text as given.
        box: xyxy photo pixels, the last step's box.
        score: the last step's score, 0..1.
        steps: the zoom, from the whole photo on; of slices, the one that showed the box.
        path_score: 0..1, by the rule of the zoom, such as the last score; what no_target is judged by.
        no_target: whether the photo seems to hold no such thing; the box is the best guess all the same.
        alternatives: the ends of the other paths of a beam, best first.
        passes: views of the photo that the detector saw, those of all paths of a beam; by default one a step.
    """

    expression: str
    box: Box
    score: float
    steps: tuple[Step, ...]
    path_score: float | None = None
    no_target: bool = False
    alternatives: tuple[Alternative, ...] = ()
    passes: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "passes", self.passes or len(self.steps))

    def to_dict(self) -> dict[str, Any]:
        """Plain dict, ready for JSON."""
        return asdict(self)


def of_zoom(result: ZoomResult, row: int, expression: str) -> Grounding:
    """One row of a batch of zooms."""
    steps = tuple(
        Step(_box(result.crops[row, t]), _box(result.boxes[row, t]), *(float(values[row, t]) for values in readings))
        for readings in [(result.scores, result.progress, result.stop_probability)]
        for t in range(int(result.num_steps[row]))
    )
    return Grounding(
        expression,
        _box(result.box[row]),
        float(result.score[row]),
        steps,
        path_score=float(result.path_score[row]),
        no_target=bool(result.no_target[row]),
        alternatives=_alternatives(result.beam, row) if result.beam else (),
        passes=int(result.beam.passes[row]) if result.beam else 0,
    )


def of_look(look: Look, photo: np.ndarray, expression: str, no_target_threshold: float = 0.0) -> Grounding:
    """A single pass as a zoom of one step, the whole photo; the path score is its score."""
    box, score = _box(look.box), float(look.score)
    whole = (0.0, 0.0, float(photo.shape[1]), float(photo.shape[0]))
    step = Step(whole, box, score, progress=0.0, stop_probability=1.0)
    return Grounding(expression, box, score, (step,), path_score=score, no_target=score < no_target_threshold)


def _alternatives(beam: Beam, row: int) -> tuple[Alternative, ...]:
    ends = zip(beam.boxes[row], beam.scores[row], beam.path_scores[row], beam.valid[row], strict=True)
    paths = [Alternative(_box(box), float(score), float(path)) for box, score, path, valid in ends if valid]
    return tuple(paths[1:])


def _box(corners: Any) -> Box:
    x0, y0, x1, y1 = (float(value) for value in corners)
    return x0, y0, x1, y1
