"""SOREC, SOREC-mini and RefCOCO as TFDS data sets; importing this registers the builders, with no TensorFlow needed."""

from tfds_sorec.refcoco.refcoco_dataset_builder import Refcoco
from tfds_sorec.sorec.sorec_dataset_builder import Sorec
from tfds_sorec.sorec_mini.sorec_mini_dataset_builder import SorecMini
from tfds_sorec.source import open_split

__all__ = ["Refcoco", "Sorec", "SorecMini", "open_split"]
