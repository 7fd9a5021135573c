"""Expressions of RefCOCO, RefCOCO+ or RefCOCOg from the files that people have, in either of two forms.

- MDETR's: ``finetune_refcoco_train.json`` ..., COCO's images and annotations with a ``caption`` beside each image.
- refer's: ``refcoco/refs(unc).p`` with the expressions and ``refcoco/instances.json`` with the boxes.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from piza_jax.data.records import Record, record_of
from piza_jax.errors import PizaError
from tfds_sorec.refcoco import safe_pickle
from tfds_sorec.refcoco.variants import Variant

_MDETR_FOLDERS = ("", "mdetr_annotations", "OpenSource")


@dataclass(frozen=True)
class Annotations:
    """What was read.

    Attributes:
        splits: our split -> expressions, in the order of the files.
        files: that they came from.
        wordless: split -> number of entries left out because nothing is said in them.
    """

    splits: dict[str, list[Record]]
    files: list[Path]
    wordless: Counter[str] = field(default_factory=Counter)


def find(folder: Path, variant: Variant) -> Annotations | None:
    """Read a data set, in MDETR's form where both are there; None where neither is.

    Raises:
        PizaError: a file that cannot be read or is not of its form, named with the entry.
    """
    if files := _mdetr_files(folder, variant):
        return _of_mdetr(files)
    if refs := _refs(folder, variant):
        return _of_refer(refs, refs.with_name("instances.json"), variant)
    return None


def is_there(folder: Path, variant: Variant) -> bool:
    """Whether ``find`` would read something."""
    return bool(_mdetr_files(folder, variant)) or _refs(folder, variant) is not None


def places(folder: Path, variant: Variant) -> str:
    """Where ``find`` looks, for an error."""
    last = list(variant.splits.values())[-1]
    return (
        f"{folder}/finetune_{variant.stem}_train.json ... {last}.json (also in its folders mdetr_annotations and "
        f"OpenSource) and {folder}/{variant.stem}/{variant.refs[0]} with instances.json"
    )


def _mdetr_files(folder: Path, variant: Variant) -> dict[str, Path]:
    """Our split -> file of MDETR's, for those that are there."""
    found = {}
    for split, theirs in variant.splits.items():
        paths = [folder / place / f"finetune_{variant.stem}_{theirs}.json" for place in _MDETR_FOLDERS]
        if there := [path for path in paths if path.is_file()]:
            found[split] = there[0]
    return found


def _refs(folder: Path, variant: Variant) -> Path | None:
    paths = [folder / variant.stem / name for name in variant.refs]
    return next((path for path in paths if path.is_file()), None)


def _of_mdetr(files: Mapping[str, Path]) -> Annotations:
    found = Annotations({}, list(files.values()))
    for split, path in files.items():
        images, annotations = _coco_parts(path)
        boxes: dict[Any, list[Mapping[str, Any]]] = defaultdict(list)
        for number, annotation in enumerate(annotations):
            _need(annotation, ("image_id", "bbox"), f"annotation {number} of {path}")
            boxes[annotation["image_id"]].append(annotation)
        records = []
        for number, image in enumerate(images):
            place = f"image {number} of {path}"
            _need(image, ("id", "file_name", "caption"), place)
            if not _said(image["caption"]):
                found.wordless[split] += 1
                continue
            if len(boxes[image["id"]]) != 1:
                raise PizaError(
                    f"{place} has a caption with {len(boxes[image['id']])} boxes; one box an expression is needed, so "
                    "take the finetune_... files of these data sets"
                )
            entry = {"image": image["file_name"], "ref": image["caption"], "id": image["id"]}
            records.append(record_of({**entry, "bbox": boxes[image["id"]][0]["bbox"]}, place))
        found.splits[split] = records
    return found


def _of_refer(refs: Path, instances: Path, variant: Variant) -> Annotations:
    if not instances.is_file():
        raise PizaError(f"{refs} is there and {instances} with its boxes is missing; put it beside it")
    images, annotations = _coco_parts(instances)
    _need_all(images, ("id", "file_name"), f"image {{}} of {instances}")
    _need_all(annotations, ("id", "bbox"), f"annotation {{}} of {instances}")
    names = {image["id"]: image["file_name"] for image in images}
    boxes = {annotation["id"]: annotation["bbox"] for annotation in annotations}
    listed = safe_pickle.load(refs)
    if not isinstance(listed, list):
        raise PizaError(f"{refs} holds no list of expressions; is it refer's file?")
    ours = {theirs: split for split, theirs in variant.splits.items()}
    found = Annotations({split: [] for split in variant.splits}, [refs, instances])
    for number, entry in enumerate(listed):
        place = f"entry {number} of {refs}"
        _need(entry, ("split", "image_id", "ann_id", "sentences"), place)
        if entry["split"] not in ours:
            raise PizaError(f"{place} is of the split {entry['split']!r}, not one of {', '.join(ours)}")
        if entry["image_id"] not in names or entry["ann_id"] not in boxes:
            raise PizaError(f"{place} speaks of a photo or box that {instances} does not have; fetch both again")
        split = ours[entry["split"]]
        for sentence in entry["sentences"]:
            _need(sentence, ("sent", "sent_id"), f"a sentence of {place}")
            if not _said(sentence["sent"]):
                found.wordless[split] += 1
                continue
            values = {"image": names[entry["image_id"]], "bbox": boxes[entry["ann_id"]]}
            record = record_of({**values, "ref": sentence["sent"], "id": sentence["sent_id"]}, place)
            found.splits[split].append(record)
    for split in [split for split, records in found.splits.items() if not records]:
        del found.splits[split]  # the split of Google's RefCOCOg has no test
    return found


def _coco_parts(path: Path) -> tuple[list[Any], list[Any]]:
    """The lists of images and of annotations in a file of COCO's form."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise PizaError(f"cannot read {path}: {error}; fetch it again") from error
    parts = [values.get(name) if isinstance(values, Mapping) else None for name in ("images", "annotations")]
    if not all(isinstance(part, list) for part in parts):
        raise PizaError(f"{path} has no lists of images and annotations; it is not of COCO's form")
    return parts[0], parts[1]  # type: ignore[return-value]


def _said(text: Any) -> bool:
    return not isinstance(text, str) or bool(text.strip())  # what is no text at all is refused with the record


def _need_all(items: Iterable[Any], keys: tuple[str, ...], place: str) -> None:
    for number, item in enumerate(items):
        _need(item, keys, place.format(number))


def _need(item: Any, keys: tuple[str, ...], place: str) -> None:
    absent = [key for key in keys if not isinstance(item, Mapping) or key not in item]
    if absent:
        raise PizaError(f"{place} has no {' and no '.join(absent)}; fetch the file again")
