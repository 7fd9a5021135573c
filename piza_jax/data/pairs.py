"""Photos and expressions in pairs, cut into batches of few sizes, and photo canvases of few sizes.

Every size of batch and of canvas is a program to compile, so that there must be few of them.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from piza_jax.data.photos import is_single
from piza_jax.errors import PizaError

# Heights and widths of photo canvases.
PHOTO_SIDES = (512, 1024, 1536, 2048, 3072, 4096, 6144, 8192, 12288, 16384)
# Lengths that sentences are padded to: at 256 tokens a third of a single pass would go into padding.
TEXT_LENGTHS = (64, 128, 256)


class Batch(NamedTuple):
    """Pairs of photo and expression that share a run of the device; B of them, L tokens."""

    texts: list[str]
    photos: list[np.ndarray]  # uint8 [H, W, 3]
    input_ids: np.ndarray  # int32 [B, L]
    token_mask: np.ndarray  # bool [B, L]


def canvas_side(side: int) -> int:
    """The smallest of PHOTO_SIDES that a height or width fits into; PizaError if none does."""
    for allowed in PHOTO_SIDES:
        if side <= allowed:
            return allowed
    raise PizaError(f"a photo side of {side} pixels is above the limit of {PHOTO_SIDES[-1]}; cut or shrink the photo")


def text_length(tokens: int, most: int) -> int:
    """The smallest of TEXT_LENGTHS that so many tokens fit into, or else ``most``; never above ``most``."""
    return min(next((length for length in TEXT_LENGTHS if tokens <= length), most), most)


def filled_rows(count: int, batch_size: int, parts: int = 1) -> list[int]:
    """Which of ``count`` pairs stands in each row of a run: the last one again in rows that are left over.

    Runs have 1, 2, 4 ... batch_size rows, rounded up to a multiple of parts, so that few sizes are compiled.
    """
    size = min(1 << (count - 1).bit_length(), batch_size)
    return [min(row, count - 1) for row in range(-(-size // parts) * parts)]


def batches(
    images: Any,
    texts: Sequence[str],
    read: Callable[[Any], np.ndarray],
    encode: Callable[[str], tuple[np.ndarray, np.ndarray]],
    batch_size: int,
) -> Iterator[Batch]:
    """Images and texts in pairs, at most batch_size at a time; either may be one for all.

    Args:
        images: one image or a sequence of them, see ``photos.is_single``.
        texts: the expressions.
        read: gives the pixels of an image, uint8 [H, W, 3].
        encode: gives the token ids int32 [L] and the mask bool [L] of a text; run for all before any photo is read.
        batch_size: most pairs of a batch.

    Raises:
        PizaError: numbers of images and texts that do not match, and what ``read`` and ``encode`` raise.
    """
    photos = [images] if is_single(images) else list(images)
    count = max(len(photos), len(texts))
    if not photos or not texts or len(photos) not in (1, count) or len(texts) not in (1, count):
        raise PizaError(
            f"{len(photos)} images and {len(texts)} expressions do not match; "
            "give as many of each, or one of either for all"
        )
    tokens = [encode(text) for text in texts]
    pixels_of = lru_cache(maxsize=1)(lambda index: read(photos[index]))
    for start in range(0, count, batch_size):
        indices = range(start, min(start + batch_size, count))
        chosen = [i if len(texts) > 1 else 0 for i in indices]
        input_ids, token_mask = (np.stack(part) for part in zip(*(tokens[i] for i in chosen), strict=True))
        pixels = [pixels_of(i if len(photos) > 1 else 0) for i in indices]
        yield Batch([texts[i] for i in chosen], pixels, input_ids, token_mask)
