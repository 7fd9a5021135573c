"""RefCOCO, RefCOCO+ and RefCOCOg: what their files are called and which splits they have."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Variant:
    """One of the three data sets.

    Attributes:
        title: what papers call it.
        stem: what file names call it.
        splits: our split -> theirs.
        refs: names of its refer-style pickle, the split of the papers first.
    """

    title: str
    stem: str
    splits: Mapping[str, str]
    refs: tuple[str, ...]


_A_AND_B = {"train": "train", "val": "val", "test_a": "testA", "test_b": "testB"}

# Name of the TFDS configuration -> data set.
VARIANTS = {
    "refcoco": Variant("RefCOCO", "refcoco", _A_AND_B, ("refs(unc).p",)),
    "refcoco_plus": Variant("RefCOCO+", "refcoco+", _A_AND_B, ("refs(unc).p",)),
    "refcocog": Variant(
        "RefCOCOg",
        "refcocog",
        {"train": "train", "val": "val", "test": "test"},
        ("refs(umd).p", "refs(google).p"),
    ),
}
