"""Annotation files of the user as rows with their places: CSV, JSON lines, SOREC's JSON or COCO's."""

import csv
import io
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from piza_jax.errors import PizaError
from tfds_sorec.own import json_places

COLUMNS = ("image", "expression", "x0", "y0", "x1", "y1")
# What an expression and a photo may be called, the first that is there counts.
WORDS = ("expression", "caption", "ref")
PHOTO = ("image", "file_name")


@dataclass(frozen=True)
class Row:
    """One entry of a file.

    Attributes:
        place: such as "line 7", from 1, or "line 1 record 7" where a line may hold many, records from 0.
        values: its fields by name, as they were written.
        problem: what kept it from being read; "" where nothing did.
    """

    place: str
    values: Mapping[str, Any] = field(default_factory=dict)
    problem: str = ""


def read_rows(path: str | os.PathLike[str]) -> list[Row]:
    """Entries of an annotation file, whose form is known by its ending and content.

    Args:
        path: .csv, .tsv (columns COLUMNS by their header, in any order), .jsonl or .json: SOREC's list of records, or
            an object of COCO's form with the expression beside the annotation or its image.

    Returns:
        Rows in the file's order; unreadable ones carry what is wrong with them.

    Raises:
        PizaError: the file is absent, of another kind, damaged as a whole, or holds no row.
    """
    path = Path(path)
    readers = {".csv": _csv, ".tsv": _csv, ".jsonl": _json_lines, ".json": _json}
    if path.suffix.lower() not in readers:
        raise PizaError(f"annotations {path} have no known ending; give one of {', '.join(readers)}")
    rows = list(readers[path.suffix.lower()](_text(path), path))
    if not rows:
        raise PizaError(f"annotations {path} hold no row; nothing can be built from them")
    return rows


def _text(path: Path) -> str:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise PizaError(f"cannot read the annotations {path} ({error.strerror}); check --annotations") from error
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise PizaError(f"{path} line {line} is not in UTF-8 ({error.reason}); save the file as UTF-8") from error


def _csv(text: str, path: Path) -> Iterator[Row]:
    head = text.split("\n", 1)[0]
    mark = max(",;\t", key=head.count)  # spreadsheets of many countries write semicolons
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=mark, strict=True)
    line = 1
    try:
        header = [name.strip().lower() for name in next(reader, [])]
        absent = [name for name in COLUMNS if name not in header]
        if absent:
            raise PizaError(
                f"{path} line 1 names the columns {', '.join(header) or 'nothing'}; {', '.join(absent)} must be among "
                f"them (the header is {','.join(COLUMNS)}, boxes in pixels of the photo)"
            )
        line = reader.line_num + 1
        for cells in reader:
            if len(cells) == len(header):
                yield Row(f"line {line}", dict(zip(header, cells, strict=True)))
            elif any(cell.strip() for cell in cells):
                cure = "put quotes around an expression with commas" if len(cells) > len(header) else "fill in the row"
                yield Row(f"line {line}", problem=f"{len(cells)} cells where the header has {len(header)}; {cure}")
            line = reader.line_num + 1
    except csv.Error as error:
        raise PizaError(
            f"{path} is no CSV from line {line} on: {error}; look for a quote that is not closed"
        ) from error


def _json_lines(text: str, path: Path) -> Iterator[Row]:
    del path
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            yield _row(f"line {number}", json.loads(line))
        except json.JSONDecodeError as error:
            yield Row(
                f"line {number}", problem=f"no JSON at column {error.colno} ({error.msg}); write one object a line"
            )


def _json(text: str, path: Path) -> Iterator[Row]:
    try:
        if text.lstrip().startswith("["):
            rows, end = json_places.read_list(text)
            json_places.check_end(text, end)
            yield from (_row(f"line {line} record {n}", value) for n, (line, value) in enumerate(rows))
            return
        values = json_places.read_object(text)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno} column {error.colno}"
        raise PizaError(f"{path} is no JSON at {place}: {error.msg}; mend the file or write it again") from error
    if not all(isinstance(values.get(name), list) for name in ("images", "annotations")):
        raise PizaError(f"{path} is neither a list of records nor an object with images and annotations")
    images = {image.get("id"): image for _, image in values["images"] if _has_number(image, "id")}
    for entry, (line, annotation) in enumerate(values["annotations"]):
        row = _row(f"line {line} annotation {entry}", annotation)
        if row.problem:
            yield row
        elif not _has_number(annotation, "image_id") or annotation["image_id"] not in images:
            number = annotation.get("image_id")
            yield Row(row.place, problem=f"there is no image with the id {number!r}; mend image_id or add it to images")
        else:
            image = images[annotation["image_id"]]
            yield Row(row.place, {**{name: image[name] for name in WORDS + PHOTO if name in image}, **annotation})


def _has_number(item: Any, name: str) -> bool:
    """Whether an image or annotation of COCO's has an id: a number, in some tools' files a text."""
    return isinstance(item, Mapping) and isinstance(item.get(name), int | str)


def _row(place: str, value: Any) -> Row:
    if isinstance(value, Mapping):
        return Row(place, value)
    return Row(place, problem=f"{str(value)[:40]!r} is no object with fields such as image and expression; mend it")
