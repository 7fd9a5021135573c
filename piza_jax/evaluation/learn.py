"""Learning a path score: which of the paths of a beam ends on the target, by a logistic regression on a split.

Half of the split's photos teach, the other half judges; all records of a photo are on one side.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from piza_jax.evaluation.geometry import overlaps
from piza_jax.evaluation.metrics import THRESHOLDS
from piza_jax.piza.grounding import Grounder, Grounding
from piza_jax.piza.learnt import FEATURES, LearntScore
from piza_jax.piza.results import of_zoom
from piza_jax.piza.zoom import ZoomResult

RIGHT = 0.5  # IoU from which on a path's last box counts as right
PENALTY = 0.01  # on the squares of the weights, beside the mean loss
_LEAST_SCALE = 1e-3  # a feature that hardly varies is not blown up
_NEWTON_STEPS, _SMALL = 50, 1e-10


@dataclass(frozen=True)
class Paths:
    """The ends of all paths of R records, K each, best first by the rule that they were found with.

    Attributes:
        photos: name of each record's photo.
        features: float32 [R, K, F] of learnt.FEATURES; F is 0 where a single path was followed.
        overlaps: float64 [R, K], IoU of the last box with the target.
        valid: bool [R, K].
    """

    photos: tuple[str, ...]
    features: np.ndarray
    overlaps: np.ndarray
    valid: np.ndarray


class Recorder:
    """Grounds like a grounder, and keeps the ends of all paths."""

    def __init__(self, grounder: Grounder):
        """Record a zoom. PizaError comes from ``ground``."""
        self.grounder = grounder
        self._boxes: list[np.ndarray] = []
        self._features: list[np.ndarray] = []
        self._valid: list[np.ndarray] = []

    def ground(self, photos: Sequence[np.ndarray], expressions: Sequence[str]) -> list[Grounding]:
        """One batch; arguments, result and errors as ``Grounder.ground``."""
        tokens = [self.grounder.tokenizer.encode(text, self.grounder.max_tokens) for text in expressions]
        input_ids, token_mask = (np.stack(part) for part in zip(*tokens, strict=True))
        result = self.grounder.run(photos, input_ids, token_mask)
        self._keep(result)
        return [of_zoom(result, row, text) for row, text in enumerate(expressions)]

    def _keep(self, result: ZoomResult) -> None:
        beam, rows = result.beam, len(result.box)
        self._boxes.append(np.asarray(result.box[:, None] if beam is None else beam.boxes))
        self._features.append(np.asarray(np.zeros((rows, 1, 0), np.float32) if beam is None else beam.features))
        self._valid.append(np.asarray(np.ones((rows, 1), bool) if beam is None else beam.valid))

    def paths(self, photos: Sequence[str], targets: np.ndarray) -> Paths:
        """All that was kept, with the name of each record's photo and its target, xyxy photo pixels [R, 4]."""
        boxes, features, valid = map(np.concatenate, (self._boxes, self._features, self._valid))
        return Paths(tuple(photos), features, overlaps(boxes, np.asarray(targets)[:, None]), valid)


@dataclass(frozen=True)
class Lesson:
    """What was learnt from one half of a split.

    Attributes:
        score: the coefficients.
        taught: mAcc, 0..1, of the best paths by it on the half that taught.
        accuracy: mAcc on the half that judges.
        records: how many judged.
    """

    score: LearntScore
    taught: float
    accuracy: float
    records: int


def learn(paths: Paths, rule: str, seed: int = 0) -> Lesson | None:
    """Fit a path score.

    Args:
        paths: of a beam.
        rule: that they were found with, a simple path score.
        seed: decides which photos teach.

    Returns:
        None where there is nothing to learn from: a single path, a single photo, or paths that are all right or wrong.
    """
    teaches = halves(paths.photos, seed)
    right = (paths.overlaps >= RIGHT)[teaches][paths.valid[teaches]]
    if paths.features.shape[-1] != len(FEATURES) or teaches.all() or right.all() or not right.any():
        return None
    score = fit(paths.features[teaches][paths.valid[teaches]], right, rule)
    best = _valid_log_odds(score, paths).argmax(axis=1)
    taught, judged = (accuracy(paths, best, rows) for rows in (teaches, ~teaches))
    return Lesson(score, taught, judged, int((~teaches).sum()))


def fit(features: np.ndarray, right: np.ndarray, rule: str, penalty: float = PENALTY) -> LearntScore:
    """Logistic regression with a penalty on the weights, by Newton's method; the same for the same data.

    Args:
        features: [N, F] of learnt.FEATURES.
        right: bool [N], of both kinds.
        rule: that the paths were found with.
        penalty: on half the sum of squared weights of standardised features, beside the mean loss; above 0.
    """
    x = np.asarray(features, np.float64)
    mean, scale = x.mean(axis=0), np.maximum(x.std(axis=0), _LEAST_SCALE)
    x = np.concatenate([(x - mean) / scale, np.ones((len(x), 1))], axis=1)
    ridge = np.append(np.full(x.shape[1] - 1, penalty), 0.0)  # the bias is free

    def loss(weights: np.ndarray) -> float:
        odds = x @ weights
        return float(np.mean(np.logaddexp(0.0, odds) - right * odds) + 0.5 * ridge @ weights**2)

    weights = np.zeros(x.shape[1])
    for _ in range(_NEWTON_STEPS):
        chance = 0.5 * (1.0 + np.tanh(0.5 * (x @ weights)))
        slope = x.T @ (chance - right) / len(x) + ridge * weights
        curvature = (x * (chance * (1 - chance))[:, None]).T @ x / len(x) + np.diag(ridge + 1e-9)
        step = np.linalg.solve(curvature, slope)
        if np.abs(step).max() < _SMALL:
            break
        size = 1.0
        while loss(weights - size * step) > loss(weights) and size > _SMALL:
            size /= 2
        weights = weights - size * step
    mean, scale, slopes = (tuple(map(float, values)) for values in (mean, scale, weights[:-1]))
    return LearntScore(rule, FEATURES, mean, scale, slopes, float(weights[-1]))


def log_odds(score: LearntScore, features: np.ndarray) -> np.ndarray:
    """Log odds float64 [...] that paths with features [..., F] are right; they rank as the score itself does."""
    return (features - np.array(score.mean)) / np.array(score.scale) @ np.array(score.weights) + score.bias


def path_scores(score: LearntScore, paths: Paths) -> np.ndarray:
    """Learnt path scores 0..1 of the best path of each record, float64 [R]."""
    return 0.5 * (1.0 + np.tanh(0.5 * _valid_log_odds(score, paths).max(axis=1)))


def _valid_log_odds(score: LearntScore, paths: Paths) -> np.ndarray:
    return np.where(paths.valid, log_odds(score, paths.features), -np.inf)


def accuracy(paths: Paths, best: np.ndarray, rows: np.ndarray) -> float:
    """mAcc, 0..1, of the paths int [R] that are taken for the answers, over the records bool [R]."""
    found = np.take_along_axis(paths.overlaps, best[:, None], axis=1)[rows]
    return float(np.mean(found.astype(np.float32) >= THRESHOLDS))


def halves(photos: Sequence[str], seed: int) -> np.ndarray:
    """Which records are of the half of the photos that teaches, bool [R]; the larger half of an odd number."""
    names = sorted(set(photos))
    order = np.random.default_rng(seed).permutation(len(names))
    teaching = {names[place] for place in order[: -(-len(names) // 2)]}
    return np.array([name in teaching for name in photos])
