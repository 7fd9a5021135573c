"""SOREC: small-object referring expressions on SODA-D's photos (Goto et al., ICCV 2025)."""

import dataclasses
import io
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets.public_api as tfds
from PIL import Image

from piza_jax.data.records import PHOTO_FOLDER, Record, photo_paths, read_annotations
from piza_jax.errors import PizaError
from tfds_sorec.features import features

SPLIT_FILES = {
    "train_s": "trainS.json",
    "train_l": "trainL.json",
    "val": "val.json",
    "test_a": "testA.json",
    "test_b": "testB.json",
}
_JPEG_END = b"\xff\xd9"


@dataclasses.dataclass
class SorecConfig(tfds.core.BuilderConfig):
    """Whether the examples are expressions or the photos that they speak of."""

    photos: bool = False


class Sorec(tfds.core.GeneratorBasedBuilder):
    """Two configurations, so that a photo is stored once however many expressions and splits name it.

    "expressions" has one example for each expression, with the number of its photo; "photos" has one split, in which
    example number n is photo n with the bytes of its file as they are. ``tfds_sorec.open_split`` joins them.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES: ClassVar = {"1.0.0": "The released annotations."}
    MANUAL_DOWNLOAD_INSTRUCTIONS = """
    Put SOREC's JSON files (trainS, trainL, val, testA, testB, or some of them) into manual_dir, and SODA-D's photos
    below it at SODA-D/rawData/Images. Both come from their own home pages and are not redistributed here.
    """
    BUILDER_CONFIGS: ClassVar = [
        SorecConfig(name="expressions", description="One example for each expression."),
        SorecConfig(name="photos", description="One example for each photo.", photos=True),
    ]

    def __init__(self, *, allow_missing_images: bool = False, **kwargs: Any):
        """``allow_missing_images`` leaves out records whose photo is absent, instead of refusing to build."""
        self.allow_missing_images = allow_missing_images
        self.left_out: dict[str, int] = {}
        kwargs.setdefault("file_format", "array_record")
        super().__init__(**kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        return self.dataset_info_from_configs(
            features=features(self.builder_config.photos),
            homepage="https://github.com/mmaiLab/sorec",
            disable_shuffling=True,  # photos are read by their number
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        folder = Path(dl_manager.manual_dir)
        splits = {
            split: read_annotations(folder / file) for split, file in SPLIT_FILES.items() if (folder / file).is_file()
        }
        if not splits:
            raise PizaError(f"none of {', '.join(SPLIT_FILES.values())} is in {folder}; put SOREC's annotations there")
        names = sorted({record.image for records in splits.values() for record in records})
        paths = photo_paths(names, folder / PHOTO_FOLDER, self.allow_missing_images)
        numbers = {name: number for number, name in enumerate(paths)}
        kept = {split: [r for r in records if r.image in numbers] for split, records in splits.items()}
        self.left_out = {split: len(records) - len(kept[split]) for split, records in splits.items()}
        if not numbers:
            raise PizaError(f"none of the {len(names)} photos is under {folder / PHOTO_FOLDER}; nothing can be built")
        sizes = {name: _photo_size(path) for name, path in paths.items()}
        for split, records in kept.items():
            _check_boxes(split, records, sizes)
        if self.builder_config.photos:
            return {"photos": self._photos(paths, sizes)}
        return {split: self._expressions(records, numbers) for split, records in kept.items() if records}

    def _generate_examples(self) -> Iterator:  # each split has a generator of its own
        raise AssertionError("the split generators yield the examples")

    def _photos(self, paths: dict[str, Path], sizes: dict[str, tuple[int, int]]) -> Iterator:
        for number, (name, path) in enumerate(paths.items()):
            width, height = sizes[name]
            yield number, {"name": name, "image": path.read_bytes(), "width": width, "height": height}

    def _expressions(self, records: list[Record], numbers: dict[str, int]) -> Iterator:
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


def _photo_size(path: Path) -> tuple[int, int]:
    """Width and height from the header; a JPEG must also have its end."""
    data = path.read_bytes()
    try:
        with Image.open(io.BytesIO(data)) as image:
            kind, size = image.format, image.size
    except OSError as error:
        raise PizaError(f"photo {path} is no image that can be read ({error}); fetch it again") from error
    if kind == "JPEG" and _JPEG_END not in data[-64:]:
        raise PizaError(f"photo {path} is truncated: its JPEG has no end; fetch it again")
    return size


def _check_boxes(split: str, records: list[Record], sizes: dict[str, tuple[int, int]]) -> None:
    """A box may stick out by the pixel that rounding costs, no further."""
    outside: Counter[str] = Counter()
    for record in records:
        width, height = sizes[record.image]
        if record.box_xyxy[2] > width + 1 or record.box_xyxy[3] > height + 1:
            outside[f"{record.id} {record.box_xyxy} in {record.image} of {width} x {height}"] += 1
    if outside:
        first = next(iter(outside))
        raise PizaError(f"{len(outside)} records of {split} have a box outside their photo, first id {first}")
