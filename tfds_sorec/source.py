"""Expressions of a split together with their photos, by index, without TensorFlow."""

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from piza_jax.errors import PizaError
from tfds_sorec.sorec.sorec_dataset_builder import Sorec


def _text(value: Any) -> str:
    return value.decode("utf-8") if isinstance(value, bytes) else str(value)


class JoinedSource:
    """Random access over the expressions of one split; picklable, so that worker processes can open it anew."""

    def __init__(self, data_dir: str, split: str):
        self.data_dir, self.split = data_dir, split
        raw = {"image": tfds.decode.SkipDecoding()}
        self._expressions = self._open("expressions", split, None)
        self._photos = self._open("photos", "photos", raw)
        self.photo_index = np.array([int(item["photo"]) for item in self._expressions], np.int64)

    def _open(self, config: str, split: str, decoders: Mapping[str, Any] | None) -> Any:
        builder = Sorec(config=config, data_dir=self.data_dir)
        known = sorted(builder.info.splits)
        if not known:
            raise PizaError(
                f"there is no SOREC data set ({config}) under {self.data_dir}; build it with python -m tfds_sorec.build"
            )
        if split not in known:
            raise PizaError(f"the SOREC data set under {self.data_dir} has no split {split!r}, only {', '.join(known)}")
        return builder.as_data_source(split=split, decoders=decoders)

    def __len__(self) -> int:
        """Number of expressions."""
        return len(self.photo_index)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Expression number ``index`` with the stored bytes of its photo."""
        item = self._expressions[int(index)]
        photo = self._photos[int(item["photo"])]
        return {
            "image": bytes(photo["image"]),
            "name": _text(item["name"]),
            "id": int(item["id"]),
            "expression": _text(item["expression"]),
            "box_xyxy": np.asarray(item["box_xyxy"], np.float32),
        }

    def __reduce__(self) -> tuple:
        """Open the files anew on the other side."""
        return JoinedSource, (self.data_dir, self.split)


def open_split(data_dir: str | os.PathLike[str], split: str) -> JoinedSource:
    """Random-access records of a built data set, as data/pipeline.py takes them.

    Args:
        data_dir: folder that ``python -m tfds_sorec.build`` wrote to.
        split: "train_s", "train_l", "val", "test_a" or "test_b".

    Raises:
        PizaError: if the data set or the split is not there.
    """
    return JoinedSource(os.fspath(data_dir), split)
