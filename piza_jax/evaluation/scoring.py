"""From answers to every number of a report, whoever gave them: our own model or a file."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from piza_jax.data.records import Record
from piza_jax.errors import PizaError
from piza_jax.evaluation.bootstrap import intervals
from piza_jax.evaluation.details import RANKS, Outcomes
from piza_jax.evaluation.evaluate import Prediction
from piza_jax.evaluation.failures import STEPS_UNKNOWN, Judged, count_failures, judge
from piza_jax.evaluation.geometry import centre_distances, overlaps
from piza_jax.evaluation.groups import (
    BY_SIZE,
    DEFAULT_EDGES,
    DetailSummary,
    Edges,
    measure_in_batches,
    summarise_details,
)
from piza_jax.evaluation.metrics import ALL, COLUMNS, Summary
from piza_jax.evaluation.predictions_file import Predicted
from piza_jax.piza.results import Box, Grounding


@dataclass(frozen=True)
class Answer:
    """What was answered to one record, beside the truth; boxes are xyxy photo pixels.

    Attributes:
        target: the true box.
        words: of the expression.
        grounding: box, score (NaN: none) and steps (empty: unknown).
        boxes: best first, for top-k accuracy; the first is the grounding's.
        num_steps: 0: unknown.
    """

    target: Box
    words: int
    grounding: Grounding
    boxes: Sequence[Box]
    num_steps: int


@dataclass(frozen=True)
class Score:
    """Every number of one split.

    Attributes:
        details: see ``groups.summarise_details``.
        intervals: 95% confidence intervals of the headline measures, {name: [low, high]}.
        failures: how many wrong answers have each label; None where no answer has steps.
        without_steps: wrong answers that have no label because their steps are unknown.
        labels: why each answer is wrong, see ``failures.judge``; None where it is right.
    """

    details: DetailSummary
    intervals: dict[str, list[float]]
    failures: dict[str, int] | None
    without_steps: int
    labels: list[str | None]

    def headline(self) -> dict[str, dict[str, Any] | None]:
        """The measures of ``metrics.COLUMNS`` for all records and by target size; mean_steps None if unknown."""
        groups = {ALL: self.details[ALL][ALL]} | self.details[BY_SIZE]
        return {
            name: None if values is None else {column: values[column] for column in COLUMNS}
            for name, values in groups.items()
        }

    def to_dict(self) -> dict[str, Any]:
        """Plain dict, ready for JSON, without the labels, which belong to the predictions."""
        return {
            "details": self.details,
            "intervals": self.intervals,
            "failures": self.failures,
            "wrong_without_steps": self.without_steps,
        }


def of_model(found: Sequence[Prediction]) -> list[Answer]:
    """Answers of our own model."""
    return [
        Answer(
            one.target, _words(one.grounding.expression), one.grounding, [one.grounding.box], len(one.grounding.steps)
        )
        for one in found
    ]


def of_file(records: Sequence[Record], joined: Sequence[Predicted]) -> list[Answer]:
    """Answers of a file, as ``join`` put them beside the records."""
    return [
        Answer(
            record.box_xyxy,
            _words(record.expression),
            Grounding(record.expression, one.boxes[0], one.score, one.steps),
            one.boxes,
            one.num_steps,
        )
        for record, one in zip(records, joined, strict=True)
    ]


def outcomes_of(answers: Sequence[Answer], judged: Judged) -> Outcomes:
    """What is measured of each answer, NumPy arrays [N], beside how ``judge`` judged them.

    Top-k accuracy is measured where an answer of the split has more than one box. Where a score lies outside 0..1 the
    scores are no chances, and none is measured.
    """
    boxes = np.array([one.grounding.box for one in answers])
    targets = np.array([one.target for one in answers])
    iou = overlaps(boxes, targets).astype(np.float32)
    centre_px, centre_widths = centre_distances(boxes, targets)
    scores = np.array([one.grounding.score for one in answers], np.float32)
    if ((scores < 0) | (scores > 1)).any():
        scores = np.full_like(scores, np.nan)
    ranked = any(len(one.boxes) > 1 for one in answers)
    return Outcomes(
        iou=iou,
        centre_px=centre_px.astype(np.float32),
        centre_widths=centre_widths.astype(np.float32),
        area_px2=(targets[:, 2:] - targets[:, :2]).prod(axis=1).astype(np.float32),
        words=np.array([one.words for one in answers], np.int32),
        steps=np.array([one.num_steps for one in answers], np.int32),
        score=scores,
        right_stops=judged.right_stops,
        stops=judged.stops,
        ranked_iou=_ranked(answers, targets) if ranked else iou[:, None],
        ranked=np.full(len(answers), ranked),
        valid=np.ones(len(answers), bool),
    )


def score(answers: Sequence[Answer], edges: Edges = DEFAULT_EDGES, seed: int = 0) -> Score:
    """Every number of one split.

    Args:
        answers: of all its records.
        edges: of the groups.
        seed: of the confidence intervals.

    Raises:
        PizaError: no answers.
    """
    if not answers:
        raise PizaError("there is nothing to score: the split holds no record")
    judged = judge([one.grounding for one in answers], [one.target for one in answers])
    outcomes = outcomes_of(answers, judged)
    zoomed = any(one.grounding.steps for one in answers)
    return Score(
        details=summarise_details(measure_in_batches(outcomes, edges)),
        intervals={name: list(ends) for name, ends in intervals(outcomes.iou, seed=seed).items()},
        failures=count_failures(judged.labels) if zoomed else None,
        without_steps=judged.labels.count(STEPS_UNKNOWN),
        labels=judged.labels,
    )


def headlines(scores: Mapping[str, Score]) -> Summary:
    """The headline of each split, for ``metrics.table``."""
    return {split: one.headline() for split, one in scores.items()}


def _words(expression: str) -> int:
    return len(expression.split())


def _ranked(answers: Sequence[Answer], targets: np.ndarray) -> np.ndarray:
    """Overlaps [N, K] of the first boxes of each answer, 0 where it has fewer."""
    padded = np.zeros((len(answers), max(RANKS), 4))
    for row, one in enumerate(answers):
        padded[row, : len(one.boxes)] = one.boxes[: max(RANKS)]
    return overlaps(padded, targets[:, None]).astype(np.float32)
