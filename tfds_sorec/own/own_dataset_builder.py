"""The user's own photos and expressions; ``python -m tfds_sorec.build_own`` gives the builder its content."""

import dataclasses
import re
from typing import Any, ClassVar

import tensorflow_datasets.public_api as tfds

from piza_jax.errors import PizaError
from tfds_sorec.features import features
from tfds_sorec.pair import Pair
from tfds_sorec.shards import Shards

DEFAULT = "own"
_PHOTOS = "_photos"


@dataclasses.dataclass
class OwnConfig(tfds.core.BuilderConfig):
    """Whether the examples are expressions or the photos that they speak of."""

    photos: bool = False


def config_of(name: str, photos: bool) -> OwnConfig:
    """The configuration of a data set by the name that the user gave it.

    Raises:
        PizaError: a name that would make no good folder, or that photos have.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or name.endswith(_PHOTOS):
        raise PizaError(
            f"the name {name!r} cannot be taken; give small letters, digits and _, from a letter on, without "
            f"{_PHOTOS} at the end"
        )
    if name == DEFAULT:  # TFDS takes no copy of a configuration that a builder names
        return Own.BUILDER_CONFIGS[photos]
    return _config(name, photos)


def _config(name: str, photos: bool) -> OwnConfig:
    kind = "photo" if photos else "expression"
    return OwnConfig(name=name + _PHOTOS * photos, description=f"One example for each {kind}.", photos=photos)


class Own(tfds.core.ShardBasedBuilder):
    """Two configurations for each data set of the user, as in Sorec: NAME with the expressions and NAME_photos.

    A data set that is built is read back by ``tfds_sorec.open_split(data_dir, split, dataset="own/NAME")``, or "own"
    alone for the default name.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES: ClassVar = {"1.0.0": "Expressions with one box each."}
    BUILDER_CONFIGS: ClassVar = [_config(DEFAULT, False), _config(DEFAULT, True)]

    def __init__(self, *, pair: Pair | None = None, digest: str = "", **kwargs: Any):
        """``pair`` is what is written, with a ``digest`` of it; a data set that is there is opened without them."""
        self.pair, self.digest = pair, digest
        kwargs.setdefault("file_format", "array_record")
        super().__init__(**kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        return self.dataset_info_from_configs(
            description="Photos and expressions of the user.",
            features=features(self.builder_config.photos),
            disable_shuffling=True,  # photos are read by their number
            metadata=tfds.core.MetadataDict(digest=self.digest),
        )

    def _shard_iterators_per_split(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Shards]:
        del dl_manager
        if self.pair is None:
            raise PizaError("own data is built from its annotations: python -m tfds_sorec.build_own")
        return self.pair.shards(self.builder_config.photos)
