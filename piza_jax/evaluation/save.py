"""Results and predictions written to files; a reader sees the old file or the whole new one."""

import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from piza_jax.errors import PizaError
from piza_jax.evaluation.scoring import Answer, Score

COCO_CATEGORY = 1  # COCO wants one; there is nothing to tell apart


def with_failures(items: Sequence[Mapping[str, Any]], score: Score) -> list[dict[str, Any]]:
    """Predictions with ``failure``, why each of them is wrong by its score: see ``failures.judge``, None if right."""
    return [{**item, "failure": label} for item, label in zip(items, score.labels, strict=True)]


def entry(number: int, answer: Answer) -> dict[str, Any]:
    """One prediction as a plain dict that ``predictions_file`` reads: id, truth, box and whatever else is known."""
    known: dict[str, Any] = {"id": number, "target": list(answer.target)} | answer.grounding.to_dict()
    known["score"] = None if math.isnan(answer.grounding.score) else answer.grounding.score
    if not answer.grounding.steps:
        known["steps"] = answer.num_steps or None
    if len(answer.boxes) > 1:
        known["boxes"] = [list(box) for box in answer.boxes]
    return known


def save_json(content: Any, path: str | os.PathLike[str]) -> None:
    """Write JSON. PizaError where the folder cannot be written."""
    _save(json.JSONEncoder(indent=1).iterencode(content), path)


def save_text(text: str, path: str | os.PathLike[str]) -> None:
    """Write text. PizaError as save_json."""
    _save([text], path)


def save_json_lines(splits: Mapping[str, Sequence[Mapping[str, Any]]], path: str | os.PathLike[str]) -> None:
    """Write predictions (dicts with id and box) one a line, each with its split. PizaError as save_json."""
    _save((json.dumps({"split": split} | dict(one)) + "\n" for split, items in splits.items() for one in items), path)


def save_coco(predictions: Sequence[Mapping[str, Any]], path: str | os.PathLike[str]) -> None:
    """Write the boxes of one split (dicts with id, box and score) as COCO results: record ids as image_id, bbox xywh.

    Raises:
        PizaError: a prediction without a score, which COCO's form needs, or a folder that cannot be written.
    """
    results = []
    for one in predictions:
        if one["score"] is None:
            raise PizaError(f"the prediction of record {one['id']} has no score, and COCO's results need one")
        x0, y0, x1, y1 = one["box"]
        bbox = [x0, y0, x1 - x0, y1 - y0]
        results.append({"image_id": one["id"], "category_id": COCO_CATEGORY, "bbox": bbox, "score": one["score"]})
    _save([json.dumps(results)], path)


def check_folder(path: str | os.PathLike[str]) -> None:
    """PizaError where the folder of a file to be written does not exist; to be asked before the work."""
    if not Path(path).parent.is_dir():
        raise PizaError(f"cannot write {path}: there is no folder {Path(path).parent}; create it first")


def make_folder(folder: str | os.PathLike[str]) -> None:
    """Make a folder for files to be written; to be asked before the work. PizaError where it cannot be made."""
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PizaError(f"cannot make the folder {folder}: {error.strerror or error}; give another one") from error


def _save(parts: Iterable[str], path: str | os.PathLike[str]) -> None:
    target = Path(path)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "w", encoding="utf-8") as file:
            file.writelines(parts)
        os.replace(temporary, target)
    except OSError as error:
        raise PizaError(f"cannot write {target}: {error.strerror or error}; give a folder that exists") from error
    finally:
        temporary.unlink(missing_ok=True)
