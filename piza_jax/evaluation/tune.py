"""What of a zoom is chosen by its results on a validation split: how paths are compared, and when nothing was found."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from tqdm import tqdm

from piza_jax.errors import PizaError
from piza_jax.evaluation import evaluate, learn, metrics
from piza_jax.evaluation.evaluate import Prediction, Records
from piza_jax.piza.grounding import Grounder
from piza_jax.piza.zoom_config import LEARNT, PATH_SCORES

BEAMS, STOPS, BACKTRACKS = (1, 3), (0.5, 0.95), (0.0, 0.5)
LOOK_BACKS = ((0.5, 0.35), (0.8, 0.5))  # sides of the wider views, over those of the photo
LAYERS = (3,)  # of the decoder, whose scores are averaged
PLAIN = {"score_layers": 1, "last_look": 0.0, "margin": 1.0}  # what a model may do otherwise by itself
LAST_LOOKS: tuple[dict[str, float], ...] = ({"last_look": 7.0}, {"last_look": 7.0, "margin": 1.35})

Open = Callable[[Mapping[str, Any]], Grounder]


@dataclass(frozen=True)
class Trial:
    """One way to zoom and what it came to.

    Attributes:
        zoom: fields of ZoomConfig.
        count: records.
        accuracy: mAcc, 0..1.
        passes: views of the detector a record.
        ceiling: what mAcc would be if the best end of all paths were always taken; that of one path is its own.
        paths: where all paths ended.
        scores: path scores of the answers, float [count].
    """

    zoom: dict[str, Any]
    count: int
    accuracy: float
    passes: float
    ceiling: float | None = None
    paths: learn.Paths | None = dataclasses.field(default=None, repr=False, compare=False)
    scores: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0), repr=False, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """All but the arrays, ready for JSON."""
        return {name: getattr(self, name) for name in ("zoom", "count", "accuracy", "passes", "ceiling")}


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
        scores: path scores of the answers, float [count].
    """

    zoom: dict[str, Any]
    count: int
    learnt: bool = False
    lesson: learn.Lesson | None = None
    simple: float | None = None
    candidate: dict[str, Any] | None = None
    scores: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0), repr=False, compare=False)

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


def ways_of_stopping(
    beams: Iterable[int] = BEAMS, stops: Iterable[float] = STOPS, backtracks: Iterable[float] = BACKTRACKS
) -> list[dict[str, Any]]:
    """Fields of ZoomConfig: each stop threshold with each way to turn back, with the fewest paths."""
    few = {"beam": min(beams), "path_score": PATH_SCORES[0], **PLAIN}
    return [{**few, "stop_threshold": stop, "backtrack": back} for stop, back in product(stops, backtracks)]


def ways_of_scoring(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Fields of ZoomConfig: as found, with scores of more layers of the decoder."""
    return [{**found, "score_layers": layers} for layers in LAYERS]


def ways_of_comparing(found: Mapping[str, Any], beams: Iterable[int] = BEAMS) -> list[dict[str, Any]]:
    """Fields of ZoomConfig: each number of paths with each path score, as found in all else, and without that itself.

    One path has no other to be compared with, so it is not among them.
    """
    ways = [{**found, "beam": beam, "path_score": rule} for beam in beams if beam > 1 for rule in PATH_SCORES]
    return [way for way in ways if way != found]


def ways_of_looking_back(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Fields of ZoomConfig: several paths as found, whose ends are looked for again in wider views, of which sides."""
    return [{**found, "look_back": sides} for sides in LOOK_BACKS if found["beam"] > 1]


def ways_of_a_last_look(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Fields of ZoomConfig: as found, with one more look at the end, which lets the crops before it be wider."""
    return [{**found, **look} for look in LAST_LOOKS]


def search(
    open_grounder: Open,
    records: Records,
    num_records: int = 0,
    beams: Sequence[int] = BEAMS,
    stops: Sequence[float] = STOPS,
    backtracks: Sequence[float] = BACKTRACKS,
    report: Callable[[Trial], None] = lambda trial: None,
) -> list[Trial]:
    """Ground the records in many ways: when to stop and turn back, how to score, more paths, looking back, a last look.

    That is a sum of trials and not a product of them: each goes on from the best so far, so that what is best for the
    fewest paths is taken to be best for several.

    Args:
        open_grounder: makes a grounder of fields of ZoomConfig.
        records: with one target each.
        num_records: this many, evenly spread; 0: all.
        beams: numbers of paths.
        stops: stop thresholds.
        backtracks: see ZoomConfig.
        report: called with each trial when it is there.

    Raises:
        PizaError: an empty source, a record that cannot be read, a senseless way to zoom, or none.
    """
    trials: list[Trial] = []

    def extend(zooms: Iterable[Mapping[str, Any]]) -> None:
        for zoom in zooms:
            trials.append(attempt(open_grounder, zoom, records, num_records))
            report(trials[-1])

    extend(ways_of_stopping(beams, stops, backtracks))
    extend(ways_of_scoring(best(trials).zoom))
    extend(ways_of_comparing(best(trials).zoom, beams))
    several = [trial for trial in trials if trial.zoom["beam"] > 1]
    extend(ways_of_looking_back(best(several).zoom) if several else [])
    extend(ways_of_a_last_look(best(trials).zoom))
    return trials


def attempt(open_grounder: Open, zoom: Mapping[str, Any], records: Records, num_records: int = 0) -> Trial:
    """Ground the records in one way; arguments and errors as ``search``."""
    recorder = learn.Recorder(open_grounder(zoom))
    count = len(evaluate.spread(len(records), num_records))
    words = ", ".join(f"{name} {value}" for name, value in zoom.items() if name != "learnt")
    looked = evaluate.predictions(recorder.grounder, records, num_records, recorder.ground)
    found = list(tqdm(looked, desc=words, total=count, leave=False, disable=None))
    paths = recorder.paths([one.name for one in found], np.array([one.target for one in found]))
    values = metrics.summarise({"": evaluate.measure(found)})[""][metrics.ALL] or {}
    nearest = np.where(paths.valid, paths.overlaps, -1.0).argmax(axis=1)
    accuracy, passes = float(values["mAcc"]), float(values["mean_steps"])
    ceiling = max(
        accuracy, learn.accuracy(paths, nearest, np.ones(len(found), bool))
    )  # one path's is its own but for rounding
    return Trial(dict(zoom), len(found), accuracy, passes, ceiling, paths, _path_scores(found))


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
        # What a wider or a last view says is no feature of a path, so that a lesson would leave it out.
        if trial.paths is None or trial.zoom.get("look_back") or trial.zoom.get("last_look"):
            continue
        lesson = learn.learn(trial.paths, trial.zoom["path_score"], seed)
        if lesson is not None:
            lessons.append((trial, lesson))
    if not lessons or simple.paths is None:
        return Choice(simple.zoom, simple.count, scores=simple.scores)
    trial, lesson = max(lessons, key=lambda pair: (pair[1].taught, -pair[0].passes))
    judges = ~learn.halves(simple.paths.photos, seed)
    judged = learn.accuracy(simple.paths, np.zeros(len(judges), int), judges)
    candidate = {**trial.zoom, "path_score": LEARNT, "learnt": dataclasses.asdict(lesson.score)}
    if lesson.accuracy <= judged or trial.paths is None:
        return Choice(simple.zoom, simple.count, False, lesson, judged, candidate, simple.scores)
    found = learn.path_scores(lesson.score, trial.paths)
    return Choice(candidate, simple.count, True, lesson, judged, candidate, found)


def absent_scores(grounder: Grounder, records: Records, num_records: int = 0) -> np.ndarray:
    """Path scores of sentences about other photos than that which is looked at, float [N].

    A sentence of another photo may be true by chance; what is chosen by it is the more careful for that.

    Args:
        grounder: what to zoom with.
        records: of several photos.
        num_records: this many, evenly spread; 0: all.

    Raises:
        PizaError: records of a single photo.
    """
    indices = evaluate.spread(len(records), num_records)
    elsewhere = _Elsewhere(records, indices, [str(records[index]["name"]) for index in indices])
    looked = evaluate.predictions(grounder, elsewhere)
    return _path_scores(tqdm(looked, desc="no target", total=len(indices), leave=False, disable=None))


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
    head = ["beam", "paths compared by", "stop from", "back below", "look back", "layers", "last look", "margin"]
    rows = [[*head, "mAcc %", "best of its paths", "passes"]]
    rows.append(["---"] * len(rows[0]))
    for trial in sorted(trials, key=lambda trial: (-trial.accuracy, trial.passes)):
        zoom = [f"{trial.zoom[name]}" for name in ("beam", "path_score", "stop_threshold", "backtrack")]
        zoom.append(" ".join(f"{side:g}" for side in trial.zoom.get("look_back", ())) or "-")
        zoom += [f"{trial.zoom.get(name, '-')}" for name in ("score_layers", "last_look", "margin")]
        ceiling = "-" if trial.ceiling is None else f"{100 * trial.ceiling:.1f}"
        rows.append([*zoom, f"{100 * trial.accuracy:.1f}", ceiling, f"{trial.passes:.2f}"])
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
