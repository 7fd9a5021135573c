"""SOREC as a TFDS data set; importing this registers the builder, with no TensorFlow needed."""

from tfds_sorec.sorec.sorec_dataset_builder import Sorec
from tfds_sorec.source import open_split

__all__ = ["Sorec", "open_split"]
