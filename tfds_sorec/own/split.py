"""A validation split by photo: no expression of one photo is on both sides."""

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from piza_jax.data.records import Record
from piza_jax.errors import PizaError


def split_by_photo(
    records: Sequence[Record], digests: Mapping[str, str], val_fraction: float, seed: int
) -> dict[str, list[Record]]:
    """Records as "train" and "val", each in the order given; copies of one photo stay together.

    Args:
        records: all of them.
        digests: name of a photo -> hash of its file.
        val_fraction: part of the photos that goes to val, one at least; 0 makes no val.
        seed: the same seed and photos give the same split, whatever the order of the records.

    Raises:
        PizaError: a fraction outside 0..1, a negative seed, or too few photos for two sides.
    """
    if not 0 <= val_fraction < 1:
        raise PizaError(f"val_fraction is {val_fraction}; it must be at least 0 and below 1")
    if seed < 0:
        raise PizaError(f"the seed is {seed}; it must be at least 0")
    if not val_fraction:
        return {"train": list(records)}
    names = defaultdict(set)
    for record in records:
        names[digests[record.image]].add(record.image)
    groups = sorted(map(sorted, names.values()))
    if len(groups) < 2:
        raise PizaError("all records are on one photo, so none can be held out; give --val_fraction=0")
    count = min(max(round(val_fraction * len(groups)), 1), len(groups) - 1)
    order = np.random.default_rng(seed).permutation(len(groups))
    held_out = {name for index in order[:count] for name in groups[index]}
    sides: dict[str, list[Record]] = {"train": [], "val": []}
    for record in records:
        sides["val" if record.image in held_out else "train"].append(record)
    return sides
