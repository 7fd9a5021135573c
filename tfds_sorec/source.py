"""Expressions of a split together with their photos, by index, without TensorFlow."""

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from piza_jax.data.records import Record
from piza_jax.errors import PizaError
from tfds_sorec.datasets import find_dataset


def _text(value: Any) -> str:
    return value.decode("utf-8") if isinstance(value, bytes) else str(value)


class JoinedSource:
    """Random access over the expressions of one split; picklable, so that worker processes can open it anew."""

    def __init__(self, data_dir: str, split: str, dataset: str = "sorec"):
        self.data_dir, self.split, self.dataset = data_dir, split, dataset
        self._about = find_dataset(dataset)
        expressions, photos = self._about.builders(data_dir)
        self._expressions = self._open(expressions, split, None)
        self._photos = self._open(photos, "photos", {"image": tfds.decode.SkipDecoding()})
        self.photo_index = np.array([int(item["photo"]) for item in self._expressions], np.int64)

    def _open(self, builder: tfds.core.DatasetBuilder, split: str, decoders: Mapping[str, Any] | None) -> Any:
        known = sorted(builder.info.splits)
        if not known:
            raise PizaError(
                f"there is no {self._about.title} data set ({builder.builder_config.name}) under {self.data_dir}; "
                f"build it with python -m {self._about.command}"
            )
        if split not in known:
            raise PizaError(
                f"the {self._about.title} data set under {self.data_dir} has no split {split!r}, only "
                f"{', '.join(known)}"
            )
        return builder.as_data_source(split=split, decoders=decoders)

    def __len__(self) -> int:
        """Number of expressions."""
        return len(self.photo_index)

    def expressions(self) -> list[str]:
        """All expressions, in order, without reading a photo: for training a tokenizer."""
        return [_text(item["expression"]) for item in self._expressions]

    def listed(self) -> list[Record]:
        """All records, in order, without reading a photo; ``image`` is the photo's name."""
        return [
            Record(
                int(item["id"]),
                _text(item["name"]),
                _text(item["expression"]),
                tuple(np.asarray(item["box_xyxy"], np.float64).tolist()),  # type: ignore[arg-type]
            )
            for item in self._expressions
        ]

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
                f"built apart; remove both and build them with python -m {self._about.command}"
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
            "train", "val" or "test"; of own data: "train", "val".
        dataset: one of datasets.NAMES, such as "sorec", "refcoco_plus", "own" or "own/birds".

    Raises:
        PizaError: if the data set or the split is not there.
    """
    return JoinedSource(os.fspath(data_dir), split, dataset)
