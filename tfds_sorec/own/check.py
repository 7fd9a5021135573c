"""Rows of the user's file to records, with every fault found at once."""

import difflib
import hashlib
import math
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from PIL import Image
from tqdm import tqdm

from piza_jax.data.records import Record
from piza_jax.errors import PizaError
from tfds_sorec.own.rows import PHOTO, WORDS, Row
from tfds_sorec.pair import Photo

SHOWN = 20
_CORNERS = ("x0", "y0", "x1", "y1")
_ORIENTATION = 0x0112  # EXIF's tag of how a photo is to be turned


@dataclass(frozen=True)
class Checked:
    """Records that can be built, and what is known of their photos.

    Attributes:
        records: in the order of the file; ``image`` is the path below the folder of the photos.
        photos: name -> photo, in the order of the names.
        digests: name -> hash of the photo's file, equal for copies under several names.
        turned: names of photos with an EXIF rotation, in which boxes are easily measured wrongly.
    """

    records: list[Record]
    photos: dict[str, Photo]
    digests: dict[str, str]
    turned: list[str]


class _BadRow(Exception):
    pass


def check(rows: Sequence[Row], annotations: str | os.PathLike[str], images: str | os.PathLike[str]) -> Checked:
    """Check every row and every photo.

    Args:
        rows: of rows.read_rows.
        annotations: their file, for errors.
        images: folder that the names of photos start from.

    Raises:
        PizaError: with the first SHOWN faults, each with its file, line and cure, and the number of all.
    """
    folder = Path(images)
    if not folder.is_dir():
        raise PizaError(f"the photo folder {folder} is missing; give --images=DIR, where the names of photos start")
    problems: dict[int, str] = {number: row.problem for number, row in enumerate(rows) if row.problem}
    read: dict[int, Record] = {}
    first: dict[int, int] = {}
    for number, row in enumerate(rows):
        if row.problem:
            continue
        try:
            read[number] = _record(row.values, number)
        except _BadRow as error:
            problems[number] = str(error)
            continue
        record = read[number]
        if (before := first.setdefault(record.id, number)) != number:
            problems[number] = f"the id {record.id} is that of {rows[before].place} too; ids are unique"
    uses = Counter(record.image for record in read.values())
    found = Checked(list(read.values()), {}, {}, [])
    faults = dict(_read_photos(sorted(uses), folder, found))
    for number, record in read.items():
        if record.image in found.photos:
            photo = found.photos[record.image]
            if not photo.holds(record.box_xyxy):
                problems.setdefault(number, _outside(record, photo))
        elif record.image in faults:  # told once for each photo, however many rows name it
            more = f" ({uses[record.image] - 1} more rows name it)" if uses[record.image] > 1 else ""
            problems.setdefault(number, faults.pop(record.image) + more)
    if problems:
        raise PizaError(_listing({rows[n].place: problems[n] for n in sorted(problems)}, annotations))
    return found


def _listing(problems: Mapping[str, str], annotations: str | os.PathLike[str]) -> str:
    lines = [f"{annotations} {place}: {text}" for place, text in problems.items()]
    more = [f"and {len(lines) - SHOWN} more"] if len(lines) > SHOWN else []
    count = f"{len(lines)} fault{'s' if len(lines) > 1 else ''} in {annotations}; nothing was written"
    return "\n  ".join([f"{count}:", *lines[:SHOWN], *more])


def _record(values: Mapping[str, Any], number: int) -> Record:
    """One row's record, with its place among the rows as id where it has none."""
    name, words = _first(values, PHOTO), _first(values, WORDS)
    if not isinstance(name, str) or not name.strip():
        raise _BadRow(f"the photo is {name!r}; give its name, as it is below the folder of the photos")
    path = PurePosixPath(name.strip().replace("\\", "/"))
    if path.is_absolute() or not path.parts or ".." in path.parts or ":" in path.parts[0] or "\0" in name:
        raise _BadRow(f"the photo {name!r} is not below the folder of the photos; give its path from there")
    if not isinstance(words, str) or not words.strip():
        raise _BadRow(f"the expression is {words!r}; say what to look for, or remove the row")
    given = values.get("id")
    if given in (None, ""):
        given = number
    elif isinstance(given, str) and given.strip().isdecimal():
        given = int(given)
    if not isinstance(given, int) or isinstance(given, bool) or not 0 <= given < 2**63:
        raise _BadRow(f"the id is {given!r}; give a whole number from 0 on, or leave the ids out")
    return Record(given, str(path), words.strip(), _box(values))


def _first(values: Mapping[str, Any], names: Sequence[str]) -> Any:
    return next((values[name] for name in names if name in values), None)


def _box(values: Mapping[str, Any]) -> tuple[float, float, float, float]:
    """Corners in pixels, from x0 .. y1, from box [x0, y0, x1, y1] or from bbox [x, y, width, height]."""
    sizes = False
    if any(name in values for name in _CORNERS):
        given = [values.get(name) for name in _CORNERS]
    elif "box" in values:
        given = values["box"]
    elif "bbox" in values:
        given, sizes = values["bbox"], True
    else:
        raise _BadRow("there is no box; give x0, y0, x1, y1, or box with these four, or bbox [x, y, width, height]")
    called = "bbox [x, y, width, height]" if sizes else "box x0, y0, x1, y1"
    numbers = [_number(value) for value in given] if isinstance(given, list | tuple) else []
    if len(numbers) != 4 or any(math.isnan(number) for number in numbers):
        raise _BadRow(f"the {called} is {given!r}; give four numbers in pixels, with a point for decimals")
    x0, y0, x1, y1 = numbers
    if sizes:
        x1, y1 = x0 + x1, y0 + y1
    if x1 <= x0 or y1 <= y0:
        cure = (
            "give a width and height above 0" if sizes else "x1 and y1 are the right and lower side; is it x, y, w, h?"
        )
        raise _BadRow(f"the {called} is {given!r}, which has no area; {cure}")
    return x0, y0, x1, y1


def _number(value: Any) -> float:
    """A finite number, or NaN for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return math.nan
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return math.nan
    return number if math.isfinite(number) else math.nan


def _read_photos(names: Sequence[str], folder: Path, found: Checked) -> Iterator[tuple[str, str]]:
    """Note the photos that can be used in ``found``; yields the name of every other and what is wrong with it."""
    for name in tqdm(names, desc="photos", disable=None):
        path = folder / name
        try:
            data = path.read_bytes()
            found.photos[name] = Photo.of(path, data)
            found.digests[name] = hashlib.sha256(data).hexdigest()
            if _turned(path):
                found.turned.append(name)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            yield name, f"there is no photo {path}{_near(path)}"
        except OSError as error:
            yield name, f"the photo {path} cannot be read ({error.strerror or error}); check the name and permissions"
        except PizaError as error:
            yield name, str(error)


def _turned(path: Path) -> bool:
    with Image.open(path) as image:
        return image.getexif().get(_ORIENTATION, 1) != 1


def _near(path: Path) -> str:
    """A cure for a name that is not there: one that is nearly the same."""
    held = os.listdir(path.parent) if path.parent.is_dir() else []
    same = [name for name in held if Path(name).stem.lower() == path.stem.lower()]
    close = same[:1] or difflib.get_close_matches(path.name, held[:20_000], n=1)
    return f"; did you mean {close[0]}?" if close else "; put it there, or remove the row"


def _outside(record: Record, photo: Photo) -> str:
    corners = " ".join(f"{side:g}" for side in record.box_xyxy)
    return (
        f"the box {corners} (x0 y0 x1 y1) leaves {record.image} of {photo.width} x {photo.height} pixels; boxes count "
        "in pixels as stored, before any EXIF rotation"
    )
