"""SOREC-mini: drawn streets, many small look-alikes, and sentences that single one out."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets.public_api as tfds

from piza_jax.data.world.pictures import photo_of, records_of
from piza_jax.data.world.pool import in_processes
from piza_jax.data.world.splits import NORMAL_SPLITS, SMALL_SPLITS, Split, scaled_scenes
from piza_jax.errors import PizaError
from tfds_sorec.features import features
from tfds_sorec.shards import Examples, Shards, one_shard, photo_shards


@dataclasses.dataclass
class SorecMiniConfig(tfds.core.BuilderConfig):
    """Which variant, and whether the examples are expressions or the photos that they speak of."""

    photos: bool = False
    normal: bool = False

    def __post_init__(self) -> None:
        if self.normal:
            self.version = tfds.core.Version("3.0.0")
            self.release_notes = {
                "2.0.0": "Half of the windows are wider and hold several groups of look-alikes.",
                "3.0.0": "More looks in a scene.",
            }

    @property
    def splits(self) -> dict[str, Split]:
        """The splits of the variant."""
        return NORMAL_SPLITS if self.normal else SMALL_SPLITS


class SorecMini(tfds.core.ShardBasedBuilder):
    """Two configurations for each variant, as in Sorec: a photo is stored once however many expressions it has.

    "small" and "normal" have one example for each expression, with the number of its photo; "small_photos" and
    "normal_photos" have one split, in which example number n is photo n. ``tfds_sorec.open_split`` joins them.
    """

    VERSION = tfds.core.Version("2.0.0")
    RELEASE_NOTES: ClassVar = {
        "1.0.0": "The first world.",
        "2.0.0": "Eight looks in a scene instead of three: half of the targets share theirs with nothing else.",
    }
    BUILDER_CONFIGS: ClassVar = [
        SorecMiniConfig(name="small", description="Small targets: one example for each expression."),
        SorecMiniConfig(name="small_photos", description="Small targets: one example for each photo.", photos=True),
        SorecMiniConfig(name="normal", description="Ordinary targets: one for each expression.", normal=True),
        SorecMiniConfig(name="normal_photos", description="Ordinary targets: photos.", photos=True, normal=True),
    ]

    def __init__(
        self,
        *,
        scale: float = 1.0,
        scenes: Mapping[str, int] | None = None,
        workers: int | None = None,
        **kwargs: Any,
    ):
        """Choose the size; both configurations of a variant must be built with the same.

        Args:
            scale: number of scenes over the default one, in each split.
            scenes: split -> number of scenes, instead of scale; a split that is not named is left out.
            workers: number of processes that draw; None takes one for each core.
            **kwargs: those of every builder.

        Raises:
            PizaError: a scale that is no number above 0; a split that is not there or has no scenes.
        """
        self.scale, self.scenes, self.workers = scale, scenes, workers
        kwargs.setdefault("file_format", "array_record")
        super().__init__(**kwargs)

    @property
    def wanted_scenes(self) -> dict[str, int]:
        """Split -> number of scenes that a build makes, in the order of the photos."""
        splits = self.builder_config.splits
        if self.scenes is None:
            return scaled_scenes(splits, self.scale)
        for name, number in self.scenes.items():
            if name not in splits or number < 1:
                raise PizaError(f"scenes={dict(self.scenes)}; give numbers above 0 for splits of {', '.join(splits)}")
        return {name: self.scenes[name] for name in splits if name in self.scenes}

    def _info(self) -> tfds.core.DatasetInfo:
        return self.dataset_info_from_configs(
            features=features(self.builder_config.photos),
            homepage="https://github.com/mmaiLab/sorec",
            disable_shuffling=True,  # photos are read by their number
            metadata=tfds.core.MetadataDict(scenes=self.wanted_scenes),
        )

    def _shard_iterators_per_split(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Shards]:
        del dl_manager
        splits, scenes = self.builder_config.splits, self.wanted_scenes
        if self.builder_config.photos:
            tasks = [(splits[name], n) for name in scenes for n in range(scenes[name])]
            return {"photos": photo_shards(self._photos(tasks), len(tasks))}
        shards, first = {}, 0
        for name, number in scenes.items():
            shards[name] = one_shard(self._expressions([(splits[name], n) for n in range(number)], first))
            first += number
        return shards

    def _photos(self, tasks: list[tuple[Split, int]]) -> Examples:
        for number, (name, (width, height), data) in enumerate(in_processes(photo_of, tasks, self.workers)):
            yield number, {"name": name, "image": data, "width": width, "height": height}

    def _expressions(self, tasks: list[tuple[Split, int]], first_photo: int) -> Examples:
        index = 0
        for number, records in enumerate(in_processes(records_of, tasks, self.workers, chunk=64)):
            for record in records:
                yield (
                    index,
                    {
                        "id": record.id,
                        "name": record.image,
                        "photo": first_photo + number,
                        "expression": record.expression,
                        "box_xyxy": np.array(record.box_xyxy, np.float32),
                    },
                )
                index += 1
