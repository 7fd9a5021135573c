"""What of a zoom is chosen by its results on a validation split: how paths are compared, and when nothing was found."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from piza_jax.errors import PizaError
from piza_jax.evaluation import evaluate, learn, metrics
from piza_jax.evaluation.evaluate import Prediction, Records
from piza_jax.piza.grounding import Grounder
from piza_jax.piza.zoom_config import LEARNT, PATH_SCORES

BEAMS, STOPS, BACKTRACKS = (1, 3), (0.5, 0.95), (0.0, 0.5)

Open = Callable[[Mapping[str, Any]], Grounder]


@dataclass(frozen=True)
class Trial:
    """One way to zoom and what it came to.

    Attributes:
        zoom: fields of ZoomConfig.
        count: records.
        accuracy: mAcc, 0..1.
        passes: views of the detector a record.
        paths: where all paths ended.
    """

    zoom: dict[str, Any]
    count: int
    accuracy: float
    passes: float
    paths: learn.Paths | None = dataclasses.field(default=None, repr=False, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """All but the paths, ready for JSON."""
        return {name: getattr(self, name) for name in ("zoom", "count", "accuracy", "passes")}


@dataclass(frozen=True)
class Choice:
    """The way to zoom that was chosen, and why.

    Attributes:
        zoom: fields of ZoomConfig.
        count: records of the trials.
        learnt: whether its path score is the learnt one.
        lesson: what was learnt, even if it was not chosen; None: nothing.
        simple: mAcc, 0..1, of the best trial on the records that judged the lesson.
        candidate: fields of ZoomConfig with the learnt path score.
    """

    zoom: dict[str, Any]
    count: int
    learnt: bool = False
    lesson: learn.Lesson | None = None
    simple: float | None = None
    candidate: dict[str, Any] | None = None

    def to_dict(self) -> dict[str, Any] | None:
        """What is known of the learnt path score, ready for JSON; None if nothing was learnt."""
        if self.lesson is None:
            return None
        judged = {"records": self.lesson.records, "accuracy": self.lesson.accuracy, "simple": self.simple}
        return {"chosen": self.learnt, **judged, "zoom": self.candidate}


@dataclass(frozen=True)
class Threshold:
    """A path score below which there is no target.

    Attributes:
        value: the threshold, 0..1.
        found: share of the sentences that are true of their photo with a score of at least that.
        rejected: share of the sentences about another photo with a lower one.
        ranked: how often the former of two scores higher than the latter (area under the curve), ties half.
    """

    value: float
    found: float
    rejected: float
    ranked: float


def candidates(
    beams: Iterable[int] = BEAMS, stops: Iterable[float] = STOPS, backtracks: Iterable[float] = BACKTRACKS
) -> Iterator[dict[str, Any]]:
    """Fields of ZoomConfig of every way to try; one path has no others to be compared with."""
    for beam, stop, backtrack in product(beams, stops, backtracks):
        for rule in PATH_SCORES if beam > 1 else PATH_SCORES[:1]:
            yield {"beam": beam, "path_score": rule, "stop_threshold": stop, "backtrack": backtrack}


def try_all(
    open_grounder: Open,
    zooms: Iterable[Mapping[str, Any]],
    records: Records,
    num_records: int = 0,
    report: Callable[[Trial], None] = lambda trial: None,
) -> list[Trial]:
    """Ground the records in each way; arguments and errors as ``curve.sweep``."""
    trials = []
    for zoom in zooms:
        recorder = learn.Recorder(open_grounder(zoom))
        found = list(evaluate.predictions(recorder.grounder, records, num_records, recorder.ground))
        paths = recorder.paths([one.name for one in found], np.array([one.target for one in found]))
        values = metrics.summarise({"": evaluate.measure(found)})[""][metrics.ALL] or {}
        trials.append(Trial(dict(zoom), len(found), float(values["mAcc"]), float(values["mean_steps"]), paths))
        report(trials[-1])
    return trials


def best(trials: Sequence[Trial]) -> Trial:
    """The most accurate trial; of several such, the one of the fewest passes."""
    if not trials:
        raise PizaError("there is no way to zoom to choose from; give at least one")
    return max(trials, key=lambda trial: (trial.accuracy, -trial.passes))


def choose(trials: Sequence[Trial], seed: int = 0) -> Choice:
    """The best trial, or a beam whose ends are ranked by a learnt score where that is better on records held out.

    A score is learnt from half of the photos of each beam tried. Of these scores the one that is best on that half is
    held against the best trial on the other half, by which that trial was chosen too, and has to be better there.

    Args:
        trials: of the same records.
        seed: decides which photos teach.

    Raises:
        PizaError: no trials.
    """
    simple = best(trials)
    lessons = []
    for trial in trials:
        lesson = learn.learn(trial.paths, trial.zoom["path_score"], seed) if trial.paths else None
        if lesson is not None:
            lessons.append((trial, lesson))
    if not lessons or simple.paths is None:
        return Choice(simple.zoom, simple.count)
    trial, lesson = max(lessons, key=lambda pair: (pair[1].taught, -pair[0].passes))
    judges = ~learn.halves(simple.paths.photos, seed)
    judged = learn.accuracy(simple.paths, np.zeros(len(judges), int), judges)
    candidate = {**trial.zoom, "path_score": LEARNT, "learnt": dataclasses.asdict(lesson.score)}
    better = lesson.accuracy > judged
    return Choice(candidate if better else simple.zoom, simple.count, better, lesson, judged, candidate)


def scores(grounder: Grounder, records: Records, num_records: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Path scores of sentences about their own photo, and of other photos' sentences about it, float [N] each.

    A sentence of another photo may be true by chance; what is chosen by it is the more careful for that.

    Args:
        grounder: what to zoom with.
        records: of several photos.
        num_records: this many, evenly spread; 0: all.

    Raises:
        PizaError: records of a single photo.
    """
    present = list(evaluate.predictions(grounder, records, num_records))
    elsewhere = _Elsewhere(records, [one.index for one in present], [one.name for one in present])
    return _path_scores(present), _path_scores(evaluate.predictions(grounder, elsewhere))


def choose_threshold(present: np.ndarray, absent: np.ndarray) -> Threshold:
    """The threshold of the best balanced accuracy; of several such, the middle of the widest gap between scores.

    Args:
        present: path scores [N] where there is a target.
        absent: path scores [M] where there is none.
    """
    values = np.unique(np.concatenate([present, absent]))
    edges = np.concatenate([[0.0], (values[1:] + values[:-1]) / 2, [1.0]])
    gaps = np.concatenate([values[:1], np.diff(values), 1 - values[-1:]])
    found = np.mean(present[:, None] >= edges, axis=0)
    rejected = np.mean(absent[:, None] < edges, axis=0)
    balanced = found + rejected
    index = int(np.argmax(np.where(balanced == balanced.max(), gaps, -1.0)))
    above = present[:, None] > absent
    ranked = float(np.mean(above + 0.5 * (present[:, None] == absent)))
    return Threshold(float(edges[index]), float(found[index]), float(rejected[index]), ranked)


def table(trials: Sequence[Trial]) -> str:
    """Markdown, a row for each trial, the best first."""
    rows = [["beam", "paths compared by", "stop from", "back below", "mAcc %", "passes"]]
    rows.append(["---"] * len(rows[0]))
    for trial in sorted(trials, key=lambda trial: (-trial.accuracy, trial.passes)):
        zoom = [f"{trial.zoom[name]}" for name in ("beam", "path_score", "stop_threshold", "backtrack")]
        rows.append([*zoom, f"{100 * trial.accuracy:.1f}", f"{trial.passes:.2f}"])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _path_scores(found: Iterable[Prediction]) -> np.ndarray:
    return np.array([one.grounding.path_score for one in found])


class _Elsewhere:
    """Records whose sentences are of the record half the list away, or of the next after it of another photo."""

    def __init__(self, records: Records, indices: Sequence[int], photos: Sequence[str]):
        if len(set(photos)) < 2:
            raise PizaError("a threshold needs records of at least two photos: what one shows the other does not")
        self.records, self.indices, self.photos = records, indices, photos

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        count = len(self.indices)
        order = [(index + count // 2 + step) % count for step in range(count)]
        other = next(place for place in order if self.photos[place] != self.photos[index])
        sentence = self.records[self.indices[other]]["expression"]
        return {**self.records[self.indices[index]], "expression": sentence}
