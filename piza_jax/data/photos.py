"""Photos as callers give them: paths, Pillow images or arrays, one or many."""

import os
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from piza_jax.data.decode import Orientation, _to_rgb, decode_rgb
from piza_jax.errors import PizaError

Photo = str | os.PathLike[str] | Image.Image | np.ndarray


def read_photo(image: Photo, orientation: Orientation = "stored") -> np.ndarray:
    """Pixels of one photo.

    Args:
        image: a path, a Pillow image or a uint8 array [H, W, 3].
        orientation: "stored", or "upright" to turn the photo as its EXIF tag says.

    Returns:
        uint8 [H, W, 3] RGB, the pixels in which boxes count.

    Raises:
        PizaError: a photo that is missing, damaged or of another kind.
    """
    if isinstance(image, (str, os.PathLike)):
        try:
            data = Path(image).read_bytes()
        except OSError as error:
            raise PizaError(f"cannot read the photo {os.fspath(image)}: {error.strerror or error}") from error
        return decode_rgb(data, os.fspath(image), orientation)
    if isinstance(image, Image.Image):
        try:
            turned = ImageOps.exif_transpose(image) if orientation == "upright" else image
            return np.asarray(_to_rgb(turned, "given"))
        except (OSError, SyntaxError, ValueError) as error:
            raise PizaError(f"the Pillow image cannot be decoded: {error}") from error
    if not hasattr(image, "dtype"):
        kind = type(image).__name__
    elif image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3 and image.size:
        return np.asarray(image)
    else:
        kind = f"an array {image.dtype} {list(image.shape)}"
    raise PizaError(f"a photo must be a path, a Pillow image or a uint8 array [H, W, 3], not {kind}")


def is_single(images: Any) -> bool:
    """Whether this is one photo and not a sequence of them (or an array [N, H, W, 3])."""
    if isinstance(images, (str, os.PathLike, Image.Image)):
        return True
    return hasattr(images, "ndim") and images.ndim != 4
