"""SOREC: small-object referring expressions on SODA-D's photos (Goto et al., ICCV 2025)."""

import dataclasses
from pathlib import Path
from typing import Any, ClassVar

import tensorflow_datasets.public_api as tfds

from piza_jax.data.records import PHOTO_FOLDER, photo_paths, read_annotations
from piza_jax.errors import PizaError
from tfds_sorec.features import features
from tfds_sorec.pair import Pair, Photo
from tfds_sorec.shards import Shards

SPLIT_FILES = {
    "train_s": "trainS.json",
    "train_l": "trainL.json",
    "val": "val.json",
    "test_a": "testA.json",
    "test_b": "testB.json",
}


@dataclasses.dataclass
class SorecConfig(tfds.core.BuilderConfig):
    """Whether the examples are expressions or the photos that they speak of."""

    photos: bool = False


class Sorec(tfds.core.ShardBasedBuilder):
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

    def _shard_iterators_per_split(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Shards]:
        folder = Path(dl_manager.manual_dir)
        splits = {
            split: read_annotations(folder / file) for split, file in SPLIT_FILES.items() if (folder / file).is_file()
        }
        if not splits:
            raise PizaError(f"none of {', '.join(SPLIT_FILES.values())} is in {folder}; put SOREC's annotations there")
        names = sorted({record.image for records in splits.values() for record in records})
        paths = photo_paths(names, folder / PHOTO_FOLDER, self.allow_missing_images)
        kept = {split: [r for r in records if r.image in paths] for split, records in splits.items()}
        self.left_out = {split: len(records) - len(kept[split]) for split, records in splits.items()}
        if not paths:
            raise PizaError(f"none of the {len(names)} photos is under {folder / PHOTO_FOLDER}; nothing can be built")
        pair = Pair(kept, {name: Photo.of(path) for name, path in paths.items()})
        pair.check_boxes()
        return pair.shards(self.builder_config.photos)
