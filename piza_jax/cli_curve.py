"""Accuracy against cost in ``piza evaluate``: its options, what they refuse, and the measuring."""

import argparse
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from piza_jax.errors import PizaError

if TYPE_CHECKING:
    from piza_jax.convert.load import Loaded
    from piza_jax.evaluation.report_page import Curve

Open = Callable[[argparse.Namespace, str, "Loaded"], Any]


def add_options(evaluate: Any) -> None:
    """Add them to the parser of ``piza evaluate``."""
    evaluate.add_argument("--curve", help="write accuracy against time and memory of many ways into this folder")
    evaluate.add_argument(
        "--curve_canvases",
        help="zooms on other canvases too: sides in pixels or HEIGHTxWIDTH, such as 512,768 or 480x640",
    )


def check(options: argparse.Namespace) -> None:
    """PizaError for options that a curve cannot be measured with."""
    if options.curve and options.json:
        raise PizaError("--curve prints its table; leave out --json, and read curve.json")
    others = ("output", "coco", "strips", "details")
    if options.curve and not options.report and (given := [name for name in others if getattr(options, name)]):
        raise PizaError(
            f"--curve alone writes a table and a figure of its own; leave out --{given[0]}, or add --report"
        )
    if options.curve_canvases is not None and not options.curve:
        raise PizaError("--curve_canvases is for the curve; add --curve=FOLDER")
    canvases_of(options.curve_canvases)


def canvases_of(text: str | None) -> list[tuple[int, int]]:
    """Heights and widths of canvases from their words; none of None. PizaError for a word that is no size."""
    canvases = []
    for word in text.split(",") if text is not None else ():
        found = re.fullmatch(r"\s*(\d+)(?:x(\d+))?\s*", word)
        height, width = (int(found[1]), int(found[2] or found[1])) if found else (0, 0)
        if min(height, width) < 1:
            raise PizaError(
                f"--curve_canvases={text}: {word!r} is no size; give sides in pixels or HEIGHTxWIDTH, such as 512,768"
            )
        canvases.append((height, width))
    return canvases


def measure(options: argparse.Namespace, sources: Mapping[str, Any], model: "Loaded", open_grounder: Open) -> "Curve":
    """Measure many ways to look on one device, print each when it is there, and write the table and the figure.

    Args:
        options: of ``piza evaluate``.
        sources: the one split, by name.
        model: to look with.
        open_grounder: makes the grounder of options, a method's word and the model.
    """
    from piza_jax.data.preprocess import Preprocessing
    from piza_jax.evaluation import curve
    from piza_jax.evaluation.report_page import Curve
    from piza_jax.evaluation.tune import LOOK_BACKS
    from piza_jax.piza.zoom import ZoomConfig

    ((split, source),) = sources.items()
    zoom = ZoomConfig(**model.zoom)
    view = model.preprocessing or Preprocessing.for_canvas(zoom.canvas_hw)
    words = options.method or curve.default_words(bool(model.config.history), zoom.canvas_hw, view.shortest_edge)
    beams = curve.BEAMS if options.beam is None else (options.beam,)
    canvases = canvases_of(options.curve_canvases)
    back = LOOK_BACKS[0] if options.look_back is None else options.look_back
    ways = curve.ways_of(words, options.max_steps or zoom.max_steps, beams, canvases, back)

    def open_way(way: curve.Way) -> Any:
        return open_grounder(argparse.Namespace(**{**vars(options), **way.zoom}), way.word, model)

    def report(point: curve.Point) -> None:
        print(curve.table([point]).splitlines()[-1], flush=True)

    points = curve.sweep(ways, open_way, source, options.num_records, report)
    curve.save(points, split, options.curve)
    return Curve(points, split)
