"""A memory of decoded photos, bounded in bytes, which the threads of a process share.

What it returns never depends on what it holds: a photo decoded at another factor has other pixels, so it does not serve
(decoding it again at 1/2 costs less than shrinking the whole photo anyway); more rows than asked for do, since the rows
are the same. So batches stay a function of their number, whoever makes them.
"""

import threading
from collections import OrderedDict

from piza_jax.data.decode import Decoded, open_part, real_factor

PHOTO_CACHE_BYTES = 2**28  # of each process that makes batches: five photos of 4000 x 3000
_BYTES_A_PIXEL = 4  # of a Pillow image in RGB


class PhotoCache:
    """The photos that were asked for last, as long as they fit."""

    def __init__(self, max_bytes: int):
        """Hold decoded photos and their files up to ``max_bytes``; a photo larger than that is not kept at all."""
        self.max_bytes, self.num_bytes = max_bytes, 0
        self._kept: OrderedDict[tuple[str, bytes, int], Decoded] = OrderedDict()  # the last one used at the end
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """Number of decoded photos held."""
        return len(self._kept)

    def get(self, data: bytes, name: str, factor: int = 1, rows: int | None = None) -> Decoded:
        """decode.open_part, or what it gave before for the same arguments or more rows. Do not change the image."""
        key = name, data, real_factor(data, name, factor)
        with self._lock:
            found = self._kept.get(key)
            if found is not None and found.rows >= min(found.size[1], found.size[1] if rows is None else rows):
                self._kept.move_to_end(key)
                return found
        found = open_part(data, name, factor, rows)
        with self._lock:
            self._drop(key)
            if _cost(key, found) <= self.max_bytes:
                self._kept[key] = found
                self.num_bytes += _cost(key, found)
            while self.num_bytes > self.max_bytes:
                self._drop(next(iter(self._kept)))
        return found

    def clear(self) -> None:
        """Forget all photos."""
        with self._lock:
            self._kept.clear()
            self.num_bytes = 0

    def _drop(self, key: tuple[str, bytes, int]) -> None:
        if key in self._kept:
            self.num_bytes -= _cost(key, self._kept.pop(key))


def _cost(key: tuple[str, bytes, int], photo: Decoded) -> int:
    return len(key[1]) + _BYTES_A_PIXEL * photo.image.width * photo.image.height


PHOTOS = PhotoCache(PHOTO_CACHE_BYTES)
