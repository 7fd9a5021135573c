"""Accuracy against cost: many ways to look at the same records with one detector, each measured alike."""

import dataclasses
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

from piza_jax.errors import PizaError
from piza_jax.evaluation import scoring
from piza_jax.evaluation.cost import Meter
from piza_jax.evaluation.curve_chart import Mark, chart
from piza_jax.evaluation.evaluate import Records, predictions
from piza_jax.evaluation.methods import method_of
from piza_jax.evaluation.metrics import ALL
from piza_jax.evaluation.save import save_json, save_text
from piza_jax.piza.grounding import Grounder

BEAMS = (2, 3, 5)
LOOKING_BACK = 3  # paths of the beam that looks back, if it is one of those
_ZOOMS = ("piza", "training_free")


@dataclass(frozen=True)
class Way:
    """One way to look.

    Attributes:
        label: its name in the table and in the figure.
        word: of the method, see ``methods.method_of``.
        zoom: fields of ZoomConfig that it sets.
        family: ways of one family are joined by a line; "": none.
    """

    label: str
    word: str
    zoom: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    family: str = ""


@dataclass(frozen=True)
class Point:
    """What a way comes to.

    Attributes:
        label: of the way.
        family: of the way.
        count: records.
        measures: mAcc, Acc50, Acc75 and mean_iou, shares 0..1.
        intervals: their 95% confidence intervals [low, high].
        ms: milliseconds an expression when everything is compiled.
        passes: views of the detector a record.
        memory: bytes at the peak.
        memory_of: "device" or "process", see ``cost.Memory``.
        memory_is_bound: whether ``memory`` is only an upper bound.
    """

    label: str
    family: str
    count: int
    measures: dict[str, float]
    intervals: dict[str, list[float]]
    ms: float
    passes: float
    memory: int
    memory_of: str
    memory_is_bound: bool


def default_words(has_piza: bool, canvas_hw: tuple[int, int], short_side: int) -> list[str]:
    """Methods to compare where none are given: the zooms, single passes, a tile grid, a sliding window.

    Args:
        has_piza: whether the model has PIZA weights.
        canvas_hw: of the zoom, pixels; the side of the sliding window.
        short_side: of photos as the detector wants them in a single pass, pixels; the larger pass has twice as much.
    """
    zooms = list(_ZOOMS) if has_piza else ["training_free"]
    side = max(canvas_hw)
    return [*zooms, "single", f"single:{2 * short_side}", "grid:2x2:full", f"sliding:{side}:0.2:full"]


def ways_of(
    words: Iterable[str],
    max_steps: int,
    beams: Sequence[int] = BEAMS,
    canvases_hw: Sequence[tuple[int, int]] = (),
    look_back: Sequence[float] = (),
) -> list[Way]:
    """Every method once, but the first zoom among them with 1 to max_steps steps, and at max_steps with more changed.

    Args:
        words: of the methods.
        max_steps: most steps of the zoom.
        beams: numbers of paths of the zoom, at max_steps.
        canvases_hw: heights and widths of canvases of the zoom beside its own, at max_steps with one path.
        look_back: sides of the wider views of one way more, a beam that looks back, see ``ZoomConfig``; none: no such.

    Raises:
        PizaError: an unknown method, or canvases without a zoom.
    """
    ways: list[Way] = []
    swept = False
    for word in (method_of(word).word for word in dict.fromkeys(words)):
        if word not in _ZOOMS or swept:
            ways.append(Way(word, word))
            continue
        swept = True
        for steps in range(1, max_steps + 1):
            label = f"{word}, {steps} step{'s' if steps > 1 else ''}"
            ways.append(Way(label, word, {"max_steps": steps, "beam": 1}, f"{word} steps"))
        several = [beam for beam in beams if beam > 1]
        for beam in several:
            zoom = {"max_steps": max_steps, "beam": beam, "look_back": ()}
            ways.append(Way(f"{word}, beam {beam}", word, zoom, f"{word} beam"))
        if several and look_back:
            beam = LOOKING_BACK if LOOKING_BACK in several else several[0]
            zoom = {"max_steps": max_steps, "beam": beam, "look_back": tuple(look_back)}
            ways.append(Way(f"{word}, beam {beam}, looking back", word, zoom, f"{word} looking back"))
        for height, width in dict.fromkeys(canvases_hw):
            label = f"{word}, canvas {height}" + (f"x{width}" if width != height else "")
            zoom = {"max_steps": max_steps, "beam": 1, "canvas_hw": (height, width)}
            ways.append(Way(label, word, zoom, f"{word} canvas"))
    if canvases_hw and not swept:
        raise PizaError(f"other canvases are those of a zoom; add --method={' or --method='.join(_ZOOMS)}")
    return ways


def measure(way: Way, grounder: Grounder, records: Records, num_records: int = 0) -> Point:
    """Ground the records in one way; arguments and errors as ``evaluate.predictions``."""
    meter = Meter(grounder)
    found = list(predictions(grounder, records, num_records, ground=meter.ground))
    score = scoring.score(scoring.of_model(found))
    overall: Any = score.details[ALL][ALL]
    memory = meter.memory
    assert memory is not None
    return Point(
        way.label,
        way.family,
        len(found),
        {name: overall[name] for name in score.intervals},
        score.intervals,
        meter.ms,
        sum(one.grounding.passes for one in found) / len(found),
        memory.peak,
        memory.of,
        memory.bound,
    )


def sweep(
    ways: Sequence[Way],
    open_grounder: Callable[[Way], Grounder],
    records: Records,
    num_records: int = 0,
    report: Callable[[Point], None] = lambda point: None,
) -> list[Point]:
    """Measure all ways, one after the other.

    Args:
        ways: what to measure.
        open_grounder: makes the grounder of a way.
        records: what to ground.
        num_records: this many, evenly spread; 0: all.
        report: called with each point when it is there.
    """
    points = []
    for way in ways:
        points.append(measure(way, open_grounder(way), records, num_records))
        report(points[-1])
    return points


def save(points: Sequence[Point], split: str, folder: str | os.PathLike[str]) -> None:
    """Write curve.json, curve.md and curve.svg into a folder that exists. PizaError where it cannot be written."""
    if not points:
        raise PizaError("a curve needs at least one way to look; give --method=WORD, or none for the usual ones")
    place = Path(folder)
    rows = [dataclasses.asdict(point) for point in points]
    save_json({"split": split, "device": _device(), "points": rows}, place / "curve.json")
    head = f"# Accuracy against cost\n\n{subtitle(points, split)}. {NOTES}"
    save_text(f"{head}\n\n{table(points)}\n", place / "curve.md")
    save_text(figure(points, split), place / "curve.svg")


def subtitle(points: Sequence[Point], split: str) -> str:
    """What was measured, and where."""
    return f"{points[0].count} records of {split}, {_device()}"


def figure(points: Sequence[Point], split: str) -> str:
    """The figure as SVG that stands alone."""
    return chart(marks_of(points), subtitle(points, split))


def _device() -> str:
    return jax.local_devices()[0].device_kind


NOTES = (
    "Time is that of an expression when everything is compiled, without the reading of files. Passes are views of the "
    'photo that the detector saw. Memory is the peak of the device where it counts ("device"), otherwise of the whole '
    'process; "at most" stands where an earlier row had reached it. Brackets hold 95% confidence intervals.'
)


def header(points: Sequence[Point]) -> list[str]:
    """Titles of the columns of ``cells``."""
    return ["way to look", "mAcc %", "Acc50 %", "ms", "passes", f"peak memory of the {points[0].memory_of}, MB"]


def cells(point: Point) -> list[str]:
    """One row of the table."""
    shares = [_share(point, name) for name in ("mAcc", "Acc50")]
    memory = f"{'at most ' if point.memory_is_bound else ''}{point.memory / 1e6:.0f}"
    return [point.label, *shares, f"{point.ms:.1f}", f"{point.passes:.2f}", memory]


def table(points: Sequence[Point]) -> str:
    """Markdown, a row for each point."""
    titles = header(points)
    rows = [titles, ["---"] * len(titles), *map(cells, points)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _share(point: Point, name: str) -> str:
    low, high = point.intervals[name]
    return f"{100 * point.measures[name]:.1f} [{100 * low:.1f}, {100 * high:.1f}]"


def marks_of(points: Sequence[Point]) -> dict[str, list[Mark]]:
    """What the figure shows, by measure."""
    return {
        name: [
            Mark(point.label, point.family, point.ms, point.measures[name], *point.intervals[name]) for point in points
        ]
        for name in ("mAcc", "Acc50")
    }
