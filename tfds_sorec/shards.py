"""Examples cut into the files of a split as they come: a data set may be larger than memory, and needs no TensorFlow.

TFDS's usual writer puts examples in order before it writes them, and what does not fit into a gigabyte goes to disk
through TensorFlow, and back into memory at once where examples are kept in the order of their numbers.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

from tqdm import tqdm

PHOTOS_A_SHARD = 100  # TFDS holds those of one file in memory
Examples = Iterator[tuple[int, dict[str, Any]]]
Shards = Sequence[Callable[[], Examples]]


def one_shard(examples: Iterable[tuple[int, dict[str, Any]]]) -> Shards:
    """All examples in one file."""
    return [partial(iter, examples)]


def photo_shards(photos: Iterable[tuple[int, dict[str, Any]]], number: int) -> Shards:
    """Photos in files of PHOTOS_A_SHARD each, with a progress bar on a terminal; to be written one after another.

    Args:
        photos: the examples, made as they are asked for.
        number: how many there are.
    """
    shown = iter(tqdm(photos, total=number, desc="photos", unit="photo", disable=None))
    lengths: list[int | None] = [PHOTOS_A_SHARD] * ((number - 1) // PHOTOS_A_SHARD)
    # The last file takes all that are left, so that whatever makes the photos comes to its end.
    return [partial(itertools.islice, shown, length) for length in [*lengths, None]]
