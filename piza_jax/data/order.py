"""The order of training: which record is at a position of the endless stream of examples.

Either form is a function of the position alone, whatever makes the batches, and every epoch holds each record once.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import grain
import numpy as np

from piza_jax.errors import PizaError


def source_index(position: int, num_records: int, seed: int) -> int:
    """The record at a position of the endless stream: every epoch is another seeded permutation."""
    epoch, place = divmod(position, num_records)
    epoch_seed = int(np.random.SeedSequence([seed, epoch]).generate_state(1)[0])
    return grain.experimental.index_shuffle(place, max_index=num_records - 1, seed=epoch_seed, rounds=4)


def make_order(source: Any, seed: int, expressions_a_photo: int = 1) -> Callable[[int], int]:
    """Position -> record of a source, see pipeline.train_batches.

    Args:
        source: the records; for more than one expression a photo it has photo_index, int [N], equal for the records of
            one photo.
        seed: decides the order.
        expressions_a_photo: 1 is source_index, more is PhotoOrder.

    Raises:
        PizaError: a number below 1, or a source that does not say which photo its records are of.
    """
    if expressions_a_photo < 1:
        raise PizaError(f"expressions_a_photo is {expressions_a_photo}; it must be at least 1")
    if expressions_a_photo == 1:
        return partial(source_index, num_records=len(source), seed=seed)
    photo_index = getattr(source, "photo_index", None)
    if photo_index is None:
        raise PizaError(
            f"expressions_a_photo is {expressions_a_photo}, but {type(source).__name__} does not say which photo a "
            "record is of; set it to 1"
        )
    return PhotoOrder(photo_index, expressions_a_photo, seed)


class PhotoOrder:
    """Shuffled groups of records that share a photo, so that it is decoded once for all of a group.

    In each epoch the records of each photo are shuffled and cut into groups of the size given, the last one of a photo
    being what is left; then all groups are shuffled.
    """

    def __init__(self, photo_index: np.ndarray, expressions_a_photo: int, seed: int):
        """Take int [N], equal for the records of one photo, and the size of a group."""
        self.photo_index = np.asarray(photo_index)
        self.expressions_a_photo, self.seed = expressions_a_photo, seed
        self._last: dict[int, np.ndarray] = {}  # the orders of the two epochs used last; batches may lie in both

    def __call__(self, position: int) -> int:
        """The record at a position of the endless stream."""
        epoch, place = divmod(position, len(self.photo_index))
        order = self._last.get(epoch)
        if order is None:  # two threads may both do this, to the same end
            order = self._of_epoch(epoch)
            self._last = {**dict(list(self._last.items())[-1:]), epoch: order}
        return int(order[place])

    def _of_epoch(self, epoch: int) -> np.ndarray:
        """All records once, int [N]."""
        rng = np.random.default_rng([self.seed, epoch, 1])
        shuffled = rng.permutation(len(self.photo_index))
        records = shuffled[np.argsort(self.photo_index[shuffled], kind="stable")]  # photo by photo, each in any order
        photos = self.photo_index[records]
        first = np.flatnonzero(np.append(True, photos[1:] != photos[:-1]))
        number = np.arange(len(records)) - np.repeat(first, np.diff(np.append(first, len(records))))
        group = np.cumsum(number % self.expressions_a_photo == 0) - 1
        place = rng.permutation(group[-1] + 1)[group]
        return records[np.argsort(place, kind="stable")]
