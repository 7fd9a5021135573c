"""SOREC's annotation files, and records straight from files on disk."""

import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from piza_jax.errors import PizaError

# Where the photos lie below the folder that the user gives, as SODA-D's own archive has them.
PHOTO_FOLDER = Path("SODA-D", "rawData", "Images")
_KEYS = ("image", "bbox", "ref", "id")


@dataclass(frozen=True)
class Record:
    """One referring expression; the box is xyxy in pixels of the stored photo."""

    id: int
    image: str
    expression: str
    box_xyxy: tuple[float, float, float, float]


def _number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) <= sys.float_info.max  # False for NaN


def record_of(item: Any, place: str) -> Record:
    """Check one entry of an annotation file.

    Args:
        item: {"image": plain file name, "bbox": [x, y, width, height] pixels, "ref": expression, "id": whole number}.
        place: what to call the entry in errors.

    Raises:
        PizaError: naming the entry and what is wrong with it.
    """
    if not isinstance(item, Mapping):
        raise PizaError(f"{place} is no object with the keys {', '.join(_KEYS)}; mend the file")
    absent = [key for key in _KEYS if key not in item]
    if absent:
        raise PizaError(f"{place} has no {' and no '.join(absent)}; mend the file")
    image, box, expression, number = (item[key] for key in _KEYS)
    if not isinstance(number, int) or isinstance(number, bool):
        raise PizaError(f"{place} has the id {number!r}, which is no whole number")
    if not isinstance(image, str) or not image or Path(image).name != image:
        raise PizaError(f"{place} has the image {image!r}, which is no plain file name")
    if not isinstance(expression, str) or not expression.strip():
        raise PizaError(f"{place} has no words in ref; give an expression or remove the record")
    if not isinstance(box, Sequence) or isinstance(box, str) or len(box) != 4 or not all(map(_number, box)):
        raise PizaError(f"{place} has the bbox {box!r}; four numbers x, y, width, height in pixels are needed")
    x, y, width, height = map(float, box)
    if width <= 0 or height <= 0:
        raise PizaError(f"{place} has a bbox of zero size: {box!r} (x, y, width, height)")
    if x < 0 or y < 0:
        raise PizaError(f"{place} has a bbox outside the photo: {box!r} (x, y, width, height)")
    return Record(number, image, expression, (x, y, x + width, y + height))


def read_annotations(path: str | os.PathLike[str]) -> list[Record]:
    """Records of a SOREC annotation file: a JSON list of {"image", "bbox" [x, y, width, height], "ref", "id"}.

    Raises:
        PizaError: naming the file, the record by its place in the list (from 0), and what is wrong with it.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise PizaError(f"annotation file {path} is missing; give the folder or file that holds SOREC's JSON") from None
    except (OSError, UnicodeDecodeError) as error:
        raise PizaError(f"annotation file {path} cannot be read: {error}") from error
    try:
        items = json.loads(text)
    except json.JSONDecodeError as error:
        whole = text[: error.pos].count('"id"')
        raise PizaError(
            f"annotation file {path} is no JSON at line {error.lineno} column {error.colno}, near record {whole}: "
            f"{error.msg}; fetch it again"
        ) from error
    if not isinstance(items, list):
        raise PizaError(f"annotation file {path} holds no list of records; is it SOREC's?")
    records = [record_of(item, f"record {index} of {path}") for index, item in enumerate(items)]
    seen: dict[int, int] = {}
    for index, record in enumerate(records):
        if record.id in seen:
            raise PizaError(f"records {seen[record.id]} and {index} of {path} share the id {record.id}; ids are unique")
        seen[record.id] = index
    return records


def photo_paths(names: Sequence[str], folder: Path, allow_missing: bool = False) -> dict[str, Path]:
    """Photo name -> path, for the names that exist.

    Raises:
        PizaError: if photos are absent and that is not allowed; names the first ones, their number and the folder.
    """
    if not folder.is_dir():
        raise PizaError(f"photo folder {folder} is missing; unpack SODA-D so that its photos lie there")
    present = set(os.listdir(folder))
    absent = sorted(set(names) - present)
    if absent and not allow_missing:
        raise PizaError(
            f"{len(absent)} of {len(set(names))} photos are missing under {folder}: {', '.join(absent[:5])}"
            f"{' ...' if len(absent) > 5 else ''}; fetch SODA-D's photos, or allow missing images to leave their "
            "records out"
        )
    return {name: folder / name for name in sorted(set(names) & present)}


class RecordSource:
    """Records with their photos read from a folder, by index; see data/pipeline.py for what an item holds."""

    def __init__(self, records: Sequence[Record], image_dir: str | os.PathLike[str], allow_missing: bool = False):
        """Check that the photos exist.

        Raises:
            PizaError: if photos are absent and that is not allowed, or there is no record or none is left.
        """
        if not records:
            raise PizaError(f"there is no record to find under {image_dir}: the annotations are empty; give others")
        paths = photo_paths([record.image for record in records], Path(image_dir), allow_missing)
        self.paths = paths
        self.records = [record for record in records if record.image in paths]
        self.left_out = len(records) - len(self.records)
        if not self.records:
            raise PizaError(f"none of the {len(records)} records has its photo under {image_dir}")

    def __len__(self) -> int:
        """Number of records whose photo exists."""
        return len(self.records)

    def listed(self) -> list[Record]:
        """All records, in order, without reading a photo."""
        return list(self.records)

    @property
    def photo_index(self) -> np.ndarray:
        """Int64 [N], equal for the records of one photo."""
        return np.unique([record.image for record in self.records], return_inverse=True)[1]

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Encoded photo and record number ``index``."""
        record = self.records[index]
        return {
            "image": self.paths[record.image].read_bytes(),
            "name": record.image,
            "id": record.id,
            "expression": record.expression,
            "box_xyxy": np.array(record.box_xyxy, np.float32),
        }
