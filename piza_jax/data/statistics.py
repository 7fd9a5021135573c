"""What is in a data set: how many expressions and photos, how long they are, and how small their targets."""

import bisect
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
from PIL import Image
from tqdm import tqdm

from piza_jax.data.records import Record
from piza_jax.errors import PizaError

SIDE_EDGES_PX = (8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)
WORD_EDGES = (5, 10, 15, 20, 25, 30, 40, 60)
_MARKS = ".,;:!?\"'()[]\u2018\u2019\u201c\u201d"
_PERCENTILES = {"p5": 5, "median": 50, "p95": 95}


class ListedSource(Protocol):
    """A source of data/pipeline.py that can list its records without reading a photo."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Mapping[str, Any]: ...

    def listed(self) -> list[Record]:
        """All records, in order."""


@dataclass(frozen=True)
class Statistics:
    """Counts and spreads; a spread is {"min", "p5", "median", "mean", "p95", "max"}.

    Attributes:
        expressions: number of records.
        photos: number of photos that they are on.
        repeated_boxes: records whose photo and box an earlier one has too.
        vocabulary: number of different words, small letters, without punctuation.
        words: words an expression.
        expressions_per_photo: how many records a photo has.
        side_px: root of the target's area, pixels.
        area_percent: target's area in percent of the photo's, over the records of the photos looked at.
        photo_megapixels: of the photos looked at.
        photos_read: how many photos were looked at for their size.
        unreadable: names of those among them that are no image, the first 5.
        side_counts: name of a range of side_px -> records.
        word_counts: name of a range of words -> records.
    """

    expressions: int
    photos: int
    repeated_boxes: int
    vocabulary: int
    words: dict[str, float]
    expressions_per_photo: dict[str, float]
    side_px: dict[str, float]
    area_percent: dict[str, float]
    photo_megapixels: dict[str, float]
    photos_read: int
    unreadable: list[str]
    side_counts: dict[str, int]
    word_counts: dict[str, int]

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def measure(source: ListedSource, max_photos: int = 2000) -> Statistics:
    """Count a source; only photos that are looked at for their size are read, and none is decoded.

    Args:
        source: the records.
        max_photos: most photos to look at, evenly spread; 0 looks at all.

    Raises:
        PizaError: there are no records, or max_photos is negative.
    """
    records = source.listed()
    if not records:
        raise PizaError("the data source holds no records")
    if max_photos < 0:
        raise PizaError(f"max_photos is {max_photos}; it must be at least 0")
    by_photo = Counter(record.image for record in records)
    sizes, read, unreadable = _photo_sizes(source, records, max_photos)
    words = [len(record.expression.split()) for record in records]
    areas = np.array([_area(record) for record in records])
    known = [(index, sizes[record.image]) for index, record in enumerate(records) if record.image in sizes]
    return Statistics(
        expressions=len(records),
        photos=len(by_photo),
        repeated_boxes=len(records) - len({(record.image, record.box_xyxy) for record in records}),
        vocabulary=len({word for record in records for word in _words(record.expression)}),
        words=_spread(words),
        expressions_per_photo=_spread(list(by_photo.values())),
        side_px=_spread(np.sqrt(areas)),
        area_percent=_spread([100 * areas[index] / (width * height) for index, (width, height) in known]),
        photo_megapixels=_spread([width * height / 1e6 for width, height in sizes.values()]),
        photos_read=read,
        unreadable=unreadable[:5],
        side_counts=_histogram(np.sqrt(areas), SIDE_EDGES_PX, "px"),
        word_counts=_histogram(words, WORD_EDGES, "words"),
    )


def text(found: Statistics) -> str:
    """The statistics as lines for a terminal."""
    lines = [
        f"{found.expressions:,} expressions on {found.photos:,} photos",
        f"expressions a photo   {_said(found.expressions_per_photo)}",
        f"words an expression   {_said(found.words)}, {found.vocabulary:,} different",
        f"target side, px       {_said(found.side_px)}",
    ]
    looked = "" if found.photos_read == found.photos else f" (of {found.photos_read:,} photos)"
    if found.area_percent:
        lines.append(f"target area, % photo  {_said(found.area_percent)}{looked}")
        lines.append(f"photo, megapixels     {_said(found.photo_megapixels)}{looked}")
    if found.repeated_boxes:
        lines.append(f"{found.repeated_boxes:,} expressions share photo and box with an earlier one")
    if found.unreadable:
        lines.append(f"photos that cannot be read, the first: {', '.join(found.unreadable)}")
    for title, counts in (("target side", found.side_counts), ("expression length", found.word_counts)):
        most = max(counts.values())
        lines += ["", title]
        lines += [f"  {name:>13}  {number:>8,}  {'#' * round(40 * number / most)}" for name, number in counts.items()]
    return "\n".join(lines)


def photo_wh(data: bytes, name: str) -> tuple[int, int]:
    """Width and height in pixels as stored, from the header alone; PizaError if it is no image."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            return image.size
    except (OSError, Image.DecompressionBombError) as error:
        raise PizaError(f"image {name} is not a JPEG, PNG or other known image; fetch it again") from error


def area_percent(record: Record, size: tuple[int, int]) -> float:
    """Area of a target in percent of that of its photo of ``size`` (width, height)."""
    return 100 * _area(record) / (size[0] * size[1])


def _area(record: Record) -> float:
    x0, y0, x1, y1 = record.box_xyxy
    return (x1 - x0) * (y1 - y0)


def _photo_sizes(
    source: ListedSource, records: Sequence[Record], most: int
) -> tuple[dict[str, tuple[int, int]], int, list[str]]:
    """Sizes of photos by name, how many were read, and which could not be."""
    first: dict[str, int] = {}
    for index, record in enumerate(records):
        first.setdefault(record.image, index)
    chosen = list(first.items())
    if most and len(chosen) > most:
        chosen = [chosen[place] for place in np.linspace(0, len(chosen) - 1, most).round().astype(int)]
    sizes, bad = {}, []
    for name, index in tqdm(chosen, desc="photo sizes", disable=None):
        try:
            sizes[name] = photo_wh(source[index]["image"], name)
        except PizaError:
            bad.append(name)
    return sizes, len(chosen), bad


def _words(expression: str) -> list[str]:
    return [word for part in expression.lower().split() if (word := part.strip(_MARKS))]


def _spread(values: Sequence[float] | np.ndarray) -> dict[str, float]:
    if not len(values):
        return {}
    array = np.asarray(values, np.float64)
    cuts = {name: float(np.percentile(array, part)) for name, part in _PERCENTILES.items()}
    low, high = float(array.min()), float(array.max())
    return {"min": low, "p5": cuts["p5"], "median": cuts["median"], "mean": float(array.mean())} | {
        "p95": cuts["p95"],
        "max": high,
    }


def _histogram(values: Sequence[float] | np.ndarray, edges: Sequence[int], unit: str) -> dict[str, int]:
    """Range -> number of values; an edge belongs to the range below it, and empty ranges at the ends are left out."""
    names = [f"<= {edges[0]} {unit}"]
    names += [f"{low + 1 if unit == 'words' else low}-{high} {unit}" for low, high in pairwise(edges)]
    names.append(f"> {edges[-1]} {unit}")
    counts = Counter(bisect.bisect_left(edges, value) for value in values)
    return {names[place]: counts[place] for place in range(min(counts), max(counts) + 1)}


def _said(spread: Mapping[str, float]) -> str:
    return (
        f"median {spread['median']:.3g}, mean {spread['mean']:.3g}, 90% in {spread['p5']:.3g}..{spread['p95']:.3g}, "
        f"all in {spread['min']:.3g}..{spread['max']:.3g}"
    )
