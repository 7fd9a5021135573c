"""Records with one half of the question hidden: whoever still answers them has found a leak in the data."""

import io
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
from PIL import Image

from piza_jax.data.decode import open_rgb
from piza_jax.data.pipeline import Source
from piza_jax.errors import PizaError

HIDDEN = ("", "photo", "expression")
_SENTENCE = "The thing to find."


class BlindSource:
    """The same records with every photo grey, or with the same expression for all."""

    def __init__(self, source: Source, hide: str):
        """Hide "photo" or "expression" of each record.

        Raises:
            PizaError: another word.
        """
        if hide not in HIDDEN[1:]:
            raise PizaError(f"data.hide={hide!r} is none of {', '.join(HIDDEN[1:])}")
        self.source, self.hide = source, hide

    def __len__(self) -> int:
        """Number of records."""
        return len(self.source)

    @property
    def photo_index(self) -> np.ndarray | None:
        """Int [N], equal for the records of one photo; None where the source does not know."""
        return getattr(self.source, "photo_index", None)

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        """Record number ``index`` without its photo's content, or without its expression."""
        record = dict(self.source[index])
        if self.hide == "expression":
            return {**record, "expression": _SENTENCE}
        return {**record, "image": _grey(open_rgb(record["image"], record["name"]).size), "name": "a grey photo"}


@lru_cache(maxsize=16)
def _grey(size: tuple[int, int]) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, (128, 128, 128)).save(buffer, "PNG")
    return buffer.getvalue()
