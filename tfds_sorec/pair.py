"""What every builder writes: expressions by split, and each photo that they speak of once."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from piza_jax.data.records import Record
from piza_jax.errors import PizaError
from tfds_sorec.shards import Examples, Shards, one_shard, photo_shards

# The last start of pixels in the files of a format, and what comes after it unless they were cut short.
_ENDS = {"JPEG": (b"\xff\xda", b"\xff\xd9"), "PNG": (b"IDAT", b"IEND")}


@dataclass(frozen=True)
class Photo:
    """A file and the size of the picture in it, pixels as they are stored."""

    path: Path
    width: int
    height: int

    @staticmethod
    def of(path: Path, data: bytes | None = None) -> "Photo":
        """Size from the header of a file, or of the bytes that were read from it; a JPEG or PNG must also have its end.

        Raises:
            PizaError: no image that can be read, or one that is cut short.
        """
        data = path.read_bytes() if data is None else data
        try:
            with Image.open(io.BytesIO(data)) as image:
                kind, (width, height) = image.format or "", image.size
        except (OSError, Image.DecompressionBombError) as error:
            raise PizaError(f"photo {path} is no image that can be read ({error}); fetch it again") from error
        start, end = _ENDS.get(kind, (b"", b""))
        if end and data.rfind(end) < data.rfind(start):
            raise PizaError(f"photo {path} is truncated: its {kind} has no end; fetch it again")
        return Photo(path, width, height)

    def holds(self, box_xyxy: Sequence[float]) -> bool:
        """Whether a box, xyxy pixels, lies in the picture; it may stick out by the pixel that rounding costs."""
        x0, y0, x1, y1 = box_xyxy
        return min(x0, y0) >= -1 and x1 <= self.width + 1 and y1 <= self.height + 1


@dataclass(frozen=True)
class Pair:
    """The content of a data set, written as two configurations that ``tfds_sorec.open_split`` joins.

    Attributes:
        splits: split -> expressions; all their photos are among ``photos``.
        photos: name -> photo, in the order of their numbers.
    """

    splits: Mapping[str, Sequence[Record]]
    photos: Mapping[str, Photo]

    def check_boxes(self) -> None:
        """PizaError for the first split with boxes outside their photos: how many, and the first of them."""
        for split, records in self.splits.items():
            outside = [record for record in records if not self.photos[record.image].holds(record.box_xyxy)]
            if outside:
                first, photo = outside[0], self.photos[outside[0].image]
                raise PizaError(
                    f"{len(outside)} records of {split} have a box outside their photo, first id {first.id} "
                    f"{first.box_xyxy} in {first.image} of {photo.width} x {photo.height}"
                )

    def shards(self, photos: bool) -> dict[str, Shards]:
        """Split -> files of examples with the fields of features.features: photos, or the splits that are not empty."""
        if photos:
            return {"photos": photo_shards(self._photos(), len(self.photos))}
        return {split: one_shard(self._expressions(records)) for split, records in self.splits.items() if records}

    def _photos(self) -> Examples:
        for number, (name, photo) in enumerate(self.photos.items()):
            size = {"width": photo.width, "height": photo.height}
            yield number, {"name": name, "image": photo.path.read_bytes(), **size}

    def _expressions(self, records: Sequence[Record]) -> Examples:
        numbers = {name: number for number, name in enumerate(self.photos)}
        for index, record in enumerate(records):
            yield (
                index,
                {
                    "id": record.id,
                    "name": record.image,
                    "photo": numbers[record.image],
                    "expression": record.expression,
                    "box_xyxy": np.array(record.box_xyxy, np.float32),
                },
            )
