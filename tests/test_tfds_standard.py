"""TFDS's own test of a builder, on the dummy data. It needs TensorFlow: install the extra `tensorflow` to run it."""

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


del _StandardTest  # or it would be collected as a test without a configuration
