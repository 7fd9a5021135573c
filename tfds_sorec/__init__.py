"""SOREC, SOREC-mini, RefCOCO and own data for TFDS; importing this registers the builders, without TensorFlow."""

from tfds_sorec.own.own_dataset_builder import Own
from tfds_sorec.refcoco.refcoco_dataset_builder import Refcoco
from tfds_sorec.sorec.sorec_dataset_builder import Sorec
from tfds_sorec.sorec_mini.sorec_mini_dataset_builder import SorecMini
from tfds_sorec.source import open_split

__all__ = ["Own", "Refcoco", "Sorec", "SorecMini", "open_split"]
