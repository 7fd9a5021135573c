"""TFDS's own test of the builders, on dummy data and a few drawn scenes.

It needs TensorFlow: install the extra `tensorflow` to run it.
"""

from pathlib import Path
from typing import ClassVar

import pytest

pytest.importorskip(
    "tensorflow", reason="TFDS's standard builder test imports TensorFlow: pip install -e .[tensorflow]"
)

import tensorflow_datasets as tfds

import tfds_sorec


class _StandardTest(tfds.testing.DatasetBuilderTestCase):
    DATASET_CLASS = tfds_sorec.Sorec

    def _make_builder(self, config=None):
        # tf.data, which the standard test reads through, has no reader of array_record.
        return self.dataset_class(data_dir=self.tmp_dir, config=config, version=self.VERSION, file_format="tfrecord")


class ExpressionsTest(_StandardTest):
    """One example for each expression, in all five splits."""

    BUILDER_CONFIG_NAMES_TO_TEST = ("expressions",)
    OVERLAPPING_SPLITS = ("train_l", "test_b")  # copies of train_s and test_a
    SPLITS = {"train_s": 24, "train_l": 24, "val": 8, "test_a": 8, "test_b": 8}  # noqa: RUF012


class PhotosTest(_StandardTest):
    """Each photo once."""

    BUILDER_CONFIG_NAMES_TO_TEST = ("photos",)
    SPLITS = {"photos": 5}  # noqa: RUF012


class _MiniTest(_StandardTest):
    """Drawn, so there is no dummy data: a scene or two of each split."""

    DATASET_CLASS = tfds_sorec.SorecMini
    EXAMPLE_DIR = Path(tfds_sorec.__file__).parent / "sorec_mini"
    SCENES: ClassVar[dict[str, int]] = {"train_s": 1, "train_l": 2, "val": 1, "test_a": 1, "test_b": 1}

    def _make_builder(self, config=None):
        config = config or self.BUILDER_CONFIG_NAMES_TO_TEST[0]
        options = {"config": config, "version": self.VERSION, "file_format": "tfrecord", "scenes": self.SCENES}
        return self.dataset_class(data_dir=self.tmp_dir, workers=1, **options)


class MiniTest(_MiniTest):
    """Expressions for small things."""

    BUILDER_CONFIG_NAMES_TO_TEST = ("small",)
    SPLITS = {"train_s": 10, "train_l": 20, "val": 10, "test_a": 10, "test_b": 10}  # noqa: RUF012


class MiniPhotosTest(_MiniTest):
    """Scenes of small things."""

    BUILDER_CONFIG_NAMES_TO_TEST = ("small_photos",)
    SPLITS = {"photos": 6}  # noqa: RUF012


class NormalMiniPhotosTest(_MiniTest):
    """Pictures of the normal variant."""

    BUILDER_CONFIG_NAMES_TO_TEST = ("normal_photos",)
    SCENES = {"train": 4, "val": 2}  # noqa: RUF012
    SPLITS = {"photos": 6}  # noqa: RUF012


del _StandardTest, _MiniTest  # or it would be collected as a test without a configuration
