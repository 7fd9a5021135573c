"""The data sets that can be read, by the names that ``--config.data.dataset`` takes."""

from dataclasses import dataclass
from typing import Any

import tensorflow_datasets as tfds

from piza_jax.errors import PizaError
from tfds_sorec.own.own_dataset_builder import DEFAULT, Own, config_of
from tfds_sorec.refcoco.refcoco_dataset_builder import Refcoco
from tfds_sorec.refcoco.variants import VARIANTS
from tfds_sorec.sorec.sorec_dataset_builder import Sorec
from tfds_sorec.sorec_mini.sorec_mini_dataset_builder import SorecMini


@dataclass(frozen=True)
class Dataset:
    """A data set of two configurations.

    Attributes:
        title: what to call it.
        kind: its builder.
        expressions: the configuration with one example for each expression, or its name.
        photos: that with one for each photo.
        command: the module that builds it.
    """

    title: str
    kind: type[tfds.core.DatasetBuilder]
    expressions: Any
    photos: Any
    command: str

    def builders(self, data_dir: str) -> tuple[tfds.core.DatasetBuilder, tfds.core.DatasetBuilder]:
        """Builders of the expressions and of the photos in data_dir, built or not."""
        one, other = (self.kind(config=config, data_dir=data_dir) for config in (self.expressions, self.photos))
        return one, other


_MINI = "tfds_sorec.build_mini"
_DATASETS = {
    "sorec": Dataset("SOREC", Sorec, "expressions", "photos", "tfds_sorec.build"),
    "sorec_mini": Dataset("SOREC-mini", SorecMini, "small", "small_photos", _MINI),
    "sorec_mini_normal": Dataset("SOREC-mini", SorecMini, "normal", "normal_photos", _MINI),
    **{
        name: Dataset(variant.title, Refcoco, name, f"{name}_photos", "tfds_sorec.build_refcoco")
        for name, variant in VARIANTS.items()
    },
}
NAMES = (*_DATASETS, "own", "own/NAME")


def find_dataset(name: str) -> Dataset:
    """The data set of a name, one of NAMES.

    Raises:
        PizaError: there is none of that name.
    """
    first, slash, own = name.partition("/")
    if first == "own":
        expressions, photos = (config_of(own if slash else DEFAULT, photos) for photos in (False, True))
        return Dataset(f"own ({own})" if slash else "own", Own, expressions, photos, "tfds_sorec.build_own")
    if name not in _DATASETS:
        raise PizaError(f"there is no data set {name!r}, only {', '.join(NAMES)}")
    return _DATASETS[name]
