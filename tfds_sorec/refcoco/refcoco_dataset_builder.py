"""RefCOCO, RefCOCO+ and RefCOCOg: referring expressions for things of ordinary size in COCO's photos."""

import dataclasses
import os
from pathlib import Path
from typing import Any, ClassVar

import tensorflow_datasets.public_api as tfds

from piza_jax.data.records import Record
from piza_jax.errors import PizaError
from tfds_sorec.features import features
from tfds_sorec.pair import Pair, Photo
from tfds_sorec.refcoco import annotations
from tfds_sorec.refcoco.photos import find_photos
from tfds_sorec.refcoco.variants import VARIANTS
from tfds_sorec.shards import Shards


@dataclasses.dataclass
class RefcocoConfig(tfds.core.BuilderConfig):
    """Which data set, a key of VARIANTS, and whether the examples are expressions or the photos they speak of."""

    variant: str = "refcoco"
    photos: bool = False


class Refcoco(tfds.core.ShardBasedBuilder):
    """Two configurations for each data set, as in Sorec: a photo is stored once however many expressions it has.

    "refcoco", "refcoco_plus" and "refcocog" have one example for each expression, with the number of its photo; those
    with "_photos" behind have one split, in which example number n is photo n. ``tfds_sorec.open_split`` joins them.

    No photo of a split other than train is in train: expressions of train whose photo is also in the data set's other
    splits are left out, and with ``across_variants`` those whose photo is held out by any of the three.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES: ClassVar = {"1.0.0": "The splits of UNC for RefCOCO and RefCOCO+, of UMD for RefCOCOg."}
    MANUAL_DOWNLOAD_INSTRUCTIONS = """
    Put finetune_refcoco_train.json ... (MDETR's files), or refcoco/refs(unc).p and refcoco/instances.json ... (refer's
    files) into manual_dir, and COCO's photos below it at train2014.
    """
    BUILDER_CONFIGS: ClassVar = [
        RefcocoConfig(
            name=f"{name}_photos" if photos else name,
            description=f"{variant.title}: one example for each {'photo' if photos else 'expression'}.",
            variant=name,
            photos=photos,
        )
        for name, variant in VARIANTS.items()
        for photos in (False, True)
    ]

    def __init__(
        self,
        *,
        images: str | os.PathLike[str] | None = None,
        allow_missing_images: bool = False,
        across_variants: bool = False,
        **kwargs: Any,
    ):
        """Choose what is left out; both configurations of a data set must be built alike.

        Args:
            images: folder of COCO's photos, or the one above train2014; None takes manual_dir.
            allow_missing_images: leave out expressions whose photo is absent, instead of refusing to build.
            across_variants: keep what any of the three data sets holds out from train, for training on one and
                evaluating on another; the annotations of all three must be there.
            **kwargs: those of every builder.
        """
        self.images, self.allow_missing_images, self.across_variants = images, allow_missing_images, across_variants
        kwargs.setdefault("file_format", "array_record")
        super().__init__(**kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        return self.dataset_info_from_configs(
            features=features(self.builder_config.photos),
            homepage="https://github.com/lichengunc/refer",
            disable_shuffling=True,  # photos are read by their number
            metadata=tfds.core.MetadataDict(across_variants=self.across_variants),
        )

    def _shard_iterators_per_split(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Shards]:
        folder = Path(dl_manager.manual_dir)
        found = _read(folder, self.builder_config.variant)
        left_out = {split: {"no words": count} for split, count in found.wordless.items() if count}
        splits = self._without_overlap(folder, found.splits, left_out)
        names = [record.image for records in splits.values() for record in records]
        paths = find_photos(names, Path(self.images or folder), self.allow_missing_images)
        for split, records in splits.items():
            kept = [record for record in records if record.image in paths]
            if len(kept) < len(records):
                left_out.setdefault(split, {})["photo missing"] = len(records) - len(kept)
            splits[split] = kept
        pair = Pair(splits, {name: Photo.of(path) for name, path in paths.items()})
        pair.check_boxes()
        self.info.metadata.update(left_out=left_out, files=[str(path.relative_to(folder)) for path in found.files])
        return pair.shards(self.builder_config.photos)

    def _without_overlap(
        self, folder: Path, splits: dict[str, list[Record]], left_out: dict[str, dict[str, int]]
    ) -> dict[str, list[Record]]:
        """Take from train what other splits show, and note how many."""
        others = [splits]
        if self.across_variants:
            others += [_read(folder, name).splits for name in VARIANTS if name != self.builder_config.variant]
        held_out = {r.image for one in others for split, rs in one.items() if split != "train" for r in rs}
        train = splits.get("train", [])
        kept = [record for record in train if record.image not in held_out]
        if len(kept) < len(train):
            photos = len({record.image for record in train} & held_out)
            left_out.setdefault("train", {}).update({"photo held out": len(train) - len(kept), "photos": photos})
        return {**splits, **({"train": kept} if train else {})}


def _read(folder: Path, variant: str) -> annotations.Annotations:
    found = annotations.find(folder, VARIANTS[variant])
    if found is None:
        raise PizaError(
            f"there are no annotations of {VARIANTS[variant].title}; looked for "
            f"{annotations.places(folder, VARIANTS[variant])}"
        )
    return found
