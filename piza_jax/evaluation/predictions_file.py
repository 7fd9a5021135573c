"""Anybody's predictions from a file: JSON lines, a JSON list, our own output, or COCO's results form.

Entries are objects with a record's ``id`` (or ``image_id``, which goes before it, as COCO calls it) and its box:

- ``box`` [x0, y0, x1, y1], or ``bbox`` [x, y, width, height] as in COCO, in photo pixels; ``score`` if there is one;
- ``boxes`` (and ``scores``) in place of or beside it: more boxes for top-k accuracy, best first unless scores say so;
- ``steps``: their number, or the list of them that ``Grounding.to_dict`` gives;
- ``split`` (JSON lines): where several splits are in one file.

Several COCO entries with one id are the boxes of that record; each of them needs a score.
"""

import json
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from piza_jax.errors import PizaError
from piza_jax.piza.results import Box, Step

FORMATS = ("auto", "xyxy", "xywh")
_READINGS = ("score", "progress", "stop_probability")
_NUMBERS, _FLOATS = {int, float}, {float}
_FARTHEST_PX = 1e9  # no photo is as large; NaN and infinity are beyond it too
MOST_RANKED = 10  # boxes of a record that are kept, the best ones


@dataclass
class Predicted:
    """What a file says of one record. Boxes are xyxy photo pixels.

    Attributes:
        id: of the record.
        boxes: one or more, best first, at most MOST_RANKED; the first is the answer.
        score: of the first; NaN: none given.
        num_steps: 0: unknown.
        steps: the zoom, if the file holds it.
        place: where in the file, for messages.
        as_xywh: whether the file's four numbers were read as x, y, width, height.
    """

    id: int
    boxes: list[Box]
    score: float
    num_steps: int
    steps: tuple[Step, ...]
    place: str
    as_xywh: bool
    ranks: list[float] = field(default_factory=list)


def read_predictions(path: str | os.PathLike[str], box_format: str = "auto") -> dict[str, dict[int, Predicted]]:
    """Predictions by split and id; the split is "" where the file names none (a list, COCO's form, lines without one).

    Args:
        path: the file.
        box_format: one of FORMATS: what the numbers of all boxes are; "auto": as their key says, see above.

    Raises:
        PizaError: naming the file, the line or entry, and what is wrong with it.
    """
    if box_format not in FORMATS:
        raise PizaError(f"box format {box_format!r} is unknown; choose one of {', '.join(FORMATS)}")
    path = Path(path)
    found: dict[str, dict[int, Predicted]] = {}
    for split, place, item in _entries(path):
        one = _predicted(item, f"{place} of {path}", box_format)
        known = found.setdefault(split, {})
        if one.id not in known:
            known[one.id] = one
        else:
            _add(known[one.id], one, "bbox" in item and "box" not in item)
    if not any(found.values()):
        raise PizaError(f"{path} holds no prediction; give one for each record")
    for split_found in found.values():
        for one in split_found.values():
            _sort(one)
    return found


def _entries(path: Path) -> Iterator[tuple[str, str, Any]]:
    """(split, place, entry) of each prediction, whatever the form of the file."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise PizaError(f"predictions file {path} is missing; check the name") from None
    except (OSError, UnicodeDecodeError) as error:
        raise PizaError(f"predictions file {path} cannot be read: {error}") from error
    if _is_lines(text):
        for number, line in enumerate(text.split("\n"), 1):
            if line.strip():
                item = _parse(line, path, number)
                split = item.get("split") if isinstance(item, Mapping) else None
                yield split if isinstance(split, str) else "", f"line {number}", item
        return
    content = _parse(text, path, 1) if text.strip() else []
    if isinstance(content, list):
        for number, item in enumerate(content):
            yield "", f"entry {number}", item
        return
    splits = content.get("predictions") if isinstance(content, Mapping) else None
    if not isinstance(splits, Mapping) or not all(isinstance(items, list) for items in splits.values()):
        raise PizaError(
            f"{path} is neither JSON lines, nor a JSON list of predictions, nor an output of piza evaluate "
            '({"predictions": {split: [...]}}); write one object a line: {"id": 1, "box": [x0, y0, x1, y1]}'
        )
    for split, items in splits.items():
        for number, item in enumerate(items):
            yield split, f"entry {number} of split {split}", item


def _is_lines(text: str) -> bool:
    """Whether the first line is an object by itself, and not a whole output of ours."""
    first = text.lstrip().split("\n", 1)[0]
    if not first.startswith("{"):
        return False
    try:
        return "predictions" not in json.loads(first)
    except json.JSONDecodeError:
        return first.rstrip() != "{" and first.rstrip().endswith("}")


def _parse(text: str, path: Path, line: int) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise PizaError(
            f"{path} is no JSON at line {line + error.lineno - 1} column {error.colno}: {error.msg}; mend that line"
        ) from error
    except RecursionError as error:
        raise PizaError(f"{path} is nested too deeply at line {line}; is it a file of predictions?") from error


def _predicted(item: Any, place: str, box_format: str) -> Predicted:
    if not isinstance(item, dict):
        raise PizaError(f'{place} is no object; give {{"id": 1, "box": [x0, y0, x1, y1]}}')
    key = "image_id" if "image_id" in item else "id"
    number = item.get(key)
    if not isinstance(number, int) or isinstance(number, bool):
        raise PizaError(f"{place} has the {key} {number!r}, which is no whole number; give the id of its record")
    named = f"{place} (id {number})"
    box_key = "box" if "box" in item or "bbox" not in item else "bbox"
    as_xywh = box_format == "xywh" or (box_format == "auto" and box_key == "bbox")
    given = item.get("boxes")
    if given is None and box_key not in item:
        raise PizaError(f"{named} has no box; give box [x0, y0, x1, y1] or bbox [x, y, width, height]")
    if given is not None and (not isinstance(given, list) or not given):
        raise PizaError(f"{named} has boxes that are no list of at least one box")
    score = _score(item.get("score"), named)
    if given is None:
        answer = _box(item[box_key], named, as_xywh)
        boxes, ranks = [answer], [score]
    else:
        boxes = [_box(corners, named, as_xywh) for corners in given]
        ranks = _ranks(item.get("scores"), len(boxes), named)
        if box_key in item:
            answer = _box(item[box_key], named, as_xywh)
        else:
            best = max(range(len(boxes)), key=lambda i: ranks[i]) if not math.isnan(ranks[0]) else 0
            answer, score = boxes[best], ranks[best] if math.isnan(score) else score
    num_steps, steps = _steps(item.get("steps"), named)
    one = Predicted(number, boxes, score, num_steps, steps, place, as_xywh, ranks)
    if given is not None:
        _sort(one)
        if answer in one.boxes:
            one.boxes.remove(answer)
        one.boxes = [answer, *one.boxes][:MOST_RANKED]
        one.ranks = []
    return one


def _add(known: Predicted, other: Predicted, is_coco: bool) -> None:
    """One more entry with the same id: a further box in COCO's form, a mistake in any other."""
    if not is_coco or not known.ranks or not other.ranks:
        raise PizaError(f"{known.place} and {other.place} have the same id {other.id}; give each record once")
    if math.isnan(known.ranks[0]) or math.isnan(other.score):
        raise PizaError(
            f"{known.place} and {other.place} have the same id {other.id} and not both a score; "
            "give each record once, or all boxes of a record with their scores"
        )
    known.boxes += other.boxes
    known.ranks += other.ranks


def _sort(one: Predicted) -> None:
    """Best box first; boxes with one score stay in their order."""
    if len(one.ranks) > 1 and not math.isnan(one.ranks[0]):
        order = sorted(range(len(one.ranks)), key=lambda i: -one.ranks[i])[:MOST_RANKED]
        one.boxes, one.ranks = [one.boxes[i] for i in order], [one.ranks[i] for i in order]
        one.score = one.ranks[0]


def _box(corners: Any, named: str, as_xywh: bool = False) -> Box:
    box = _box_or_none(corners, as_xywh)
    if box is None:
        raise PizaError(f"{named} has the box {corners!r}; four finite numbers in photo pixels are needed")
    return box


def _box_or_none(corners: Any, as_xywh: bool = False) -> Box | None:
    """The box, or None if it is no four numbers; a file has so many that their names are made for errors only."""
    try:
        a, b, c, d = corners
        kinds = {type(a), type(b), type(c), type(d)}
        # NaN and infinity fail these comparisons too.
        if not (kinds <= _NUMBERS and -_FARTHEST_PX < a < _FARTHEST_PX and -_FARTHEST_PX < b < _FARTHEST_PX):
            return None
        if not (-_FARTHEST_PX < c < _FARTHEST_PX and -_FARTHEST_PX < d < _FARTHEST_PX):
            return None
    except (TypeError, ValueError):
        return None
    if as_xywh:
        return float(a), float(b), float(a + c), float(b + d)
    return (a, b, c, d) if kinds == _FLOATS else (float(a), float(b), float(c), float(d))


def _score(value: Any, named: str) -> float:
    if value is None:
        return math.nan
    if not (type(value) in _NUMBERS and -_FARTHEST_PX < value < _FARTHEST_PX):
        raise PizaError(f"{named} has the score {value!r}; give a finite number or none at all")
    return float(value)


def _ranks(scores: Any, count: int, named: str) -> list[float]:
    if scores is None:
        return [math.nan] * count
    if not isinstance(scores, list) or len(scores) != count or None in scores:
        raise PizaError(f"{named} has {count} boxes and other scores; give one score for each box")
    return [_score(value, named) for value in scores]


def _steps(value: Any, named: str) -> tuple[int, tuple[Step, ...]]:
    if value is None:
        return 0, ()
    if type(value) is int and value >= 1:
        return value, ()
    if isinstance(value, list) and value and all([isinstance(step, dict) for step in value]):
        steps = []
        for number, step in enumerate(value):
            crop, box = _box_or_none(step.get("crop")), _box_or_none(step.get("box"))
            if crop is None or box is None:
                raise PizaError(
                    f"step {number} of {named} needs crop and box, four finite numbers in photo pixels each"
                )
            steps.append(Step(crop, box, *[_score(step.get(key), named) for key in _READINGS]))
        return len(steps), tuple(steps)
    raise PizaError(f"{named} has the steps {value!r:.60}; give their number, or a list of steps with crop and box")
