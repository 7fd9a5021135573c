"""What grounding gives: the box of an expression and the steps that led to it. Needs no model code."""

from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import jax

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
        path_score: 0..1, by the rule of the zoom, such as the mean score; what no_target is judged by.
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


class Beam(NamedTuple):
    """The ends of all paths of a beam, best first; float32, boxes xyxy photo pixels."""

    boxes: jax.Array  # [B, K, 4]
    scores: jax.Array  # [B, K], of these boxes, 0..1
    path_scores: jax.Array  # [B, K], 0..1
    valid: jax.Array  # bool [B, K], False where the views had fewer distinct boxes
    passes: jax.Array  # int32 [B], views that were looked at by all paths together
    features: jax.Array  # [B, K, F], see piza/learnt.py


class ZoomResult(NamedTuple):
    """The end of each zoom, and its steps; N = max_steps, one more with a last look. Boxes are float32 xyxy photo px.

    Step t looks at crop t, finds box t in it, and then asks whether that box is final. Steps after the final one are
    not active and repeat it.
    """

    box: jax.Array  # [B, 4], the box of the last active step
    score: jax.Array  # [B], its score, 0..1
    num_steps: jax.Array  # int32 [B], 1..N
    crops: jax.Array  # [B, N, 4]
    boxes: jax.Array  # [B, N, 4]
    scores: jax.Array  # [B, N]
    progress: jax.Array  # [B, N], of the crop, as read (training-free: as the box found in it implies)
    stop_probability: jax.Array  # [B, N], that the box is final (training-free: how near it is to the rule's end)
    active: jax.Array  # bool [B, N]
    path_score: jax.Array  # [B], 0..1, by config.path_score
    no_target: jax.Array  # bool [B], path_score is below config.no_target_threshold
    beam: Beam | None = None  # of a beam zoom


def of_zoom(result: ZoomResult, row: int, expression: str) -> Grounding:
    """One row of a batch of zooms."""
    steps = tuple(
        Step(
            as_box(result.crops[row, t]), as_box(result.boxes[row, t]), *(float(values[row, t]) for values in readings)
        )
        for readings in [(result.scores, result.progress, result.stop_probability)]
        for t in range(int(result.num_steps[row]))
    )
    return Grounding(
        expression,
        as_box(result.box[row]),
        float(result.score[row]),
        steps,
        path_score=float(result.path_score[row]),
        no_target=bool(result.no_target[row]),
        alternatives=_alternatives(result.beam, row) if result.beam else (),
        passes=int(result.beam.passes[row]) if result.beam else 0,
    )


def _alternatives(beam: Beam, row: int) -> tuple[Alternative, ...]:
    ends = zip(beam.boxes[row], beam.scores[row], beam.path_scores[row], beam.valid[row], strict=True)
    paths = [Alternative(as_box(box), float(score), float(path)) for box, score, path, valid in ends if valid]
    return tuple(paths[1:])


def as_box(corners: Any) -> Box:
    """Four numbers as a tuple of Python floats."""
    x0, y0, x1, y1 = (float(value) for value in corners)
    return x0, y0, x1, y1
