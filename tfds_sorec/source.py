"""Expressions of a split together with their photos, by index, without TensorFlow."""

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from piza_jax.errors import PizaError
from tfds_sorec.refcoco.refcoco_dataset_builder import Refcoco
from tfds_sorec.refcoco.variants import VARIANTS
from tfds_sorec.sorec.sorec_dataset_builder import Sorec
from tfds_sorec.sorec_mini.sorec_mini_dataset_builder import SorecMini

# Data set -> what to call it, its builder, the configurations of expressions and of photos, and what builds it.
_DATASETS: dict[str, tuple[str, type[tfds.core.GeneratorBasedBuilder], str, str, str]] = {
    "sorec": ("SOREC", Sorec, "expressions", "photos", "tfds_sorec.build"),
    "sorec_mini": ("SOREC-mini", SorecMini, "small", "small_photos", "tfds_sorec.build_mini"),
    "sorec_mini_normal": ("SOREC-mini", SorecMini, "normal", "normal_photos", "tfds_sorec.build_mini"),
    **{
        name: (variant.title, Refcoco, name, f"{name}_photos", "tfds_sorec.build_refcoco")
        for name, variant in VARIANTS.items()
    },
}


def _text(value: Any) -> str:
    return value.decode("utf-8") if isinstance(value, bytes) else str(value)


class JoinedSource:
    """Random access over the expressions of one split; picklable, so that worker processes can open it anew."""

    def __init__(self, data_dir: str, split: str, dataset: str = "sorec"):
        self.data_dir, self.split, self.dataset = data_dir, split, dataset
        if dataset not in _DATASETS:
            raise PizaError(f"there is no data set {dataset!r}, only {', '.join(_DATASETS)}")
        raw = {"image": tfds.decode.SkipDecoding()}
        _, _, expressions, photos, _ = _DATASETS[dataset]
        self._expressions = self._open(expressions, split, None)
        self._photos = self._open(photos, "photos", raw)
        self.photo_index = np.array([int(item["photo"]) for item in self._expressions], np.int64)

    def _open(self, config: str, split: str, decoders: Mapping[str, Any] | None) -> Any:
        title, kind, _, _, command = _DATASETS[self.dataset]
        builder = kind(config=config, data_dir=self.data_dir)
        known = sorted(builder.info.splits)
        if not known:
            raise PizaError(
                f"there is no {title} data set ({config}) under {self.data_dir}; build it with python -m {command}"
            )
        if split not in known:
            raise PizaError(
                f"the {title} data set under {self.data_dir} has no split {split!r}, only {', '.join(known)}"
            )
        return builder.as_data_source(split=split, decoders=decoders)

    def __len__(self) -> int:
        """Number of expressions."""
        return len(self.photo_index)

    def expressions(self) -> list[str]:
        """All expressions, in order, without reading a photo: for training a tokenizer."""
        return [_text(item["expression"]) for item in self._expressions]

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Expression number ``index`` with the stored bytes of its photo.

        Raises:
            PizaError: if the photo is another's, because expressions and photos were built apart.
        """
        item = self._expressions[int(index)]
        name, number = _text(item["name"]), int(item["photo"])
        photo = self._photos[number] if number < len(self._photos) else None
        if photo is None or _text(photo["name"]) != name:
            raise PizaError(
                f"photo {number} of {self.dataset} under {self.data_dir} is not {name}: expressions and photos were "
                f"built apart; remove both and build them with python -m {_DATASETS[self.dataset][-1]}"
            )
        return {
            "image": bytes(photo["image"]),
            "name": name,
            "id": int(item["id"]),
            "expression": _text(item["expression"]),
            "box_xyxy": np.asarray(item["box_xyxy"], np.float32),
        }

    def __reduce__(self) -> tuple:
        """Open the files anew on the other side."""
        return JoinedSource, (self.data_dir, self.split, self.dataset)


def open_split(data_dir: str | os.PathLike[str], split: str, dataset: str = "sorec") -> JoinedSource:
    """Random-access records of a built data set, as data/pipeline.py takes them.

    Args:
        data_dir: folder that one of the programs ``python -m tfds_sorec.build...`` wrote to.
        split: of "sorec" and "sorec_mini": "train_s", "train_l", "val", "test_a" or "test_b"; of "sorec_mini_normal":
            "train" or "val"; of "refcoco" and "refcoco_plus": "train", "val", "test_a" or "test_b"; of "refcocog":
            "train", "val" or "test".
        dataset: one of these names.

    Raises:
        PizaError: if the data set or the split is not there.
    """
    return JoinedSource(os.fspath(data_dir), split, dataset)
