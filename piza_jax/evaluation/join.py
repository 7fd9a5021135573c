"""Predictions of a file beside the records of annotation files; refuses what cannot be scored fairly."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from piza_jax.data.records import Record, read_annotations
from piza_jax.errors import PizaError
from piza_jax.evaluation.geometry import overlaps
from piza_jax.evaluation.predictions_file import Predicted

_MANY = 0.1  # share of the boxes with their corners in the wrong order from which on all are of another format
_BETTER, _BY = 3.0, 0.05  # the other reading's mean IoU must be so many times as high, and higher by this much


def read_splits(paths: Sequence[str | os.PathLike[str]]) -> dict[str, list[Record]]:
    """Records of annotation files by the stem of the file.

    Raises:
        PizaError: a file that cannot be read, that holds no record, or that has the stem of another one.
    """
    splits: dict[str, list[Record]] = {}
    for path in map(Path, paths):
        if path.stem in splits:
            raise PizaError(f"two annotation files are called {path.stem}; rename one or score them one at a time")
        splits[path.stem] = read_annotations(path)
        if not splits[path.stem]:
            raise PizaError(f"annotation file {path} holds no record; there is nothing to score")
    return splits


def join(
    splits: Mapping[str, Sequence[Record]], found: Mapping[str, Mapping[int, Predicted]], source: str
) -> dict[str, list[Predicted]]:
    """The prediction of each record, in the order of the records.

    Where the file names every split that is scored, each is joined with its own predictions and others are left out;
    otherwise records are looked up by id among all predictions.

    Args:
        splits: records to score, by split.
        found: what ``read_predictions`` gave.
        source: name of the file, for messages.

    Raises:
        PizaError: ids that are missing, unknown, or in more than one split.
    """
    if all(split in found for split in splits):
        parts = {split: found[split] for split in splits}
    else:
        everything = _only_once(found, f"predictions of {source}")
        _only_once({split: {record.id: record for record in records} for split, records in splits.items()}, "records")
        parts = dict.fromkeys(splits, everything)
        known = {record.id for records in splits.values() for record in records}
        _refuse_unknown(everything, known, source)
    joined = {}
    for split, records in splits.items():
        missing = [record.id for record in records if record.id not in parts[split]]
        if missing:
            raise PizaError(
                f"{source} has no prediction for {len(missing)} of the {len(records)} records of {split}: id "
                f"{_some(missing)}; every record counts, so give a box for each"
            )
        if split in found and parts[split] is found[split]:
            _refuse_unknown(parts[split], {record.id for record in records}, source)
        joined[split] = [parts[split][record.id] for record in records]
    return joined


def check_format(
    joined: Mapping[str, Sequence[Predicted]], splits: Mapping[str, Sequence[Record]], source: str
) -> None:
    """Notice boxes that were read in the wrong format; nothing is ever swapped.

    Boxes are of the other format if many have their corners in the wrong order, or if the other reading overlaps the
    targets much better, over all records.

    Raises:
        PizaError: saying what was seen and which format to give; or a single box with its corners in the wrong order.
    """
    rows = [
        (one, record) for split, records in splits.items() for one, record in zip(joined[split], records, strict=True)
    ]
    boxes = np.array([one.boxes[0] for one, _ in rows])
    targets = np.array([record.box_xyxy for _, record in rows])
    as_xywh = np.array([one.as_xywh for one, _ in rows])
    low, high = boxes[:, :2], boxes[:, 2:]
    other = np.concatenate([low, np.where(as_xywh[:, None], high - low, high + low)], axis=1)
    flipped = (high < low).any(axis=1)
    mean, other_mean = _mean_overlap(boxes, targets), _mean_overlap(other, targets)
    given, meant = ("xywh", "xyxy") if as_xywh.mean() > 0.5 else ("xyxy", "xywh")
    better = other_mean > _BETTER * mean and other_mean > mean + _BY
    many = flipped.mean() >= _MANY and not (other[:, 2:] < low).any()
    if better or many:
        raise PizaError(
            f"the boxes of {source} were read as {given} but look like {meant}: {np.count_nonzero(flipped)} of "
            f"{len(rows)} have x1 below x0 or y1 below y0, and their mean IoU with the targets is {mean:.3f} as "
            f"{given} and {other_mean:.3f} as {meant}; give --format={meant}, or correct the file"
        )
    wrong = [(one, box) for one, _ in rows for box in one.boxes if box[2] < box[0] or box[3] < box[1]]
    if wrong:
        one, box = wrong[0]
        raise PizaError(
            f"{one.place} of {source} (id {one.id}) has the box {list(box)} (read as xyxy pixels"
            f"{' from xywh' if one.as_xywh else ''}), whose second corner is above or left of the first; "
            f"so have {len(wrong) - 1} more; correct the file"
        )


def _mean_overlap(boxes: np.ndarray, targets: np.ndarray) -> float:
    """Mean IoU; a box with its corners in the wrong order overlaps nothing."""
    proper = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
    return float(np.where(proper, overlaps(boxes, targets), 0.0).mean())


def _only_once(splits: Mapping[str, Mapping[int, Predicted]] | Mapping[str, Mapping[int, Record]], what: str) -> dict:
    together: dict = {}
    for split, items in splits.items():
        twice = sorted(together.keys() & items.keys())
        if twice:
            raise PizaError(
                f"{len(twice)} ids of the {what} are in more than one split, also in {split}: id {_some(twice)}; "
                "score one annotation file at a time"
            )
        together.update(items)
    return together


def _refuse_unknown(predicted: Mapping[int, Predicted], known: set[int], source: str) -> None:
    unknown = [number for number in predicted if number not in known]
    if unknown:
        raise PizaError(
            f"{len(unknown)} predictions of {source} belong to no record of the annotations: id {_some(unknown)}; "
            "give the annotations that they were made for"
        )


def _some(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers[:5])) + (" ..." if len(numbers) > 5 else "")
