"""Encoded photos to RGB pixels.

Boxes of SOREC, as of most data sets, count in the pixels as they are stored. So EXIF orientation is not applied unless
it is asked for: turning a photo without its boxes would put every box in the wrong place.

A JPEG can be decoded in part: at 1/2, 1/4 or 1/8 of its resolution, straight from its cosine coefficients (libjpeg's
scaled decoding), and down to the last row that is wanted (data/jpeg_rows.py).
"""

import contextlib
import io
import math
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from PIL import Image, ImageOps

from piza_jax.data.jpeg_rows import claim_rows
from piza_jax.errors import PizaError

Orientation = Literal["stored", "upright"]

# Photos come in these (a phone's MPO counts as JPEG); Pillow knows others whose decoders start other programs.
FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "TIFF", "BMP", "GIF", "PPM", "JPEG2000")

# Parts of a JPEG's resolution that libjpeg decodes to, as photo pixels a decoded pixel.
FACTORS = (8, 4, 2, 1)

# The last rows of a JPEG are interpolated from those below them (chroma of two rows and its neighbours).
_ROW_MARGIN = 16

# What Pillow's decoders raise on damaged data.
_DAMAGE = (OSError, SyntaxError, ValueError, EOFError, IndexError, OverflowError, struct.error, zlib.error)


def open_rgb(
    data: bytes,
    name: str,
    orientation: Orientation = "stored",
    *,
    max_pixels: int | None = None,
) -> Image.Image:
    """Decode an image to an RGB Pillow image.

    CMYK, grey, palette and 16-bit grey images are converted; transparent parts become white. Of an animation the first
    frame is taken.

    Args:
        data: encoded image, of one of FORMATS.
        name: what to call the image in an error.
        orientation: "stored" keeps the pixels as they are stored, in which annotations count; "upright" turns them as
            the EXIF tag says, as a viewer would, and boxes then count in the turned image.
        max_pixels: refuse a larger image by its header, before anything is decoded; None: Pillow's own limit.

    Raises:
        PizaError: the data is no image, is damaged or cut short, is too large, or is of a kind that has no RGB form.
    """
    with _opening(data, name) as image:
        if max_pixels is not None and image.width * image.height > max_pixels:
            raise PizaError(
                f"image {name} has {image.width} x {image.height} pixels and the limit is "
                f"{max_pixels / 1e6:g} million; shrink it or cut it into parts"
            )
        image.load()
        return _to_rgb(ImageOps.exif_transpose(image) if orientation == "upright" else image, name)


def decode_rgb(data: bytes, name: str, orientation: Orientation = "stored", **limits: Any) -> np.ndarray:
    """Decode an image to uint8 [H, W, 3] RGB; arguments and errors as open_rgb."""
    return np.array(open_rgb(data, name, orientation, **limits))


@dataclass(frozen=True)
class Decoded:
    """A photo in stored orientation, or its upper part, decoded at a part of its resolution.

    Attributes:
        image: RGB Pillow image, or the upper part of it.
        size: width and height of the whole photo, its own pixels.
        factor: photo pixels a pixel of ``image``, along both axes: a place in the photo divided by it is the place in
            the image. Where it does not divide the photo's side, the last pixel lies partly outside of the photo.
        rows: photo rows from the top that ``image`` shows as the whole photo would; those below it are not to be read.
    """

    image: Image.Image
    size: tuple[int, int]
    factor: int
    rows: int


def photo_size(data: bytes, name: str) -> tuple[int, int]:
    """Width and height of an image by its header, in stored pixels; arguments and errors as open_rgb."""
    with _opening(data, name) as image:
        return image.size


def real_factor(data: bytes, name: str, factor: int) -> int:
    """The factor at which open_part decodes an image for one that is asked for; errors as open_rgb."""
    if factor == 1:
        return 1
    with _opening(data, name) as image:
        return _scale(image, factor)


def open_part(data: bytes, name: str, factor: int = 1, rows: int | None = None) -> Decoded:
    """Decode no more of an image than is needed, in stored orientation; only a JPEG is ever decoded in part.

    Args:
        data: encoded image, of one of FORMATS.
        name: what to call the image in an error.
        factor: one of FACTORS, photo pixels a decoded pixel.
        rows: photo rows that are needed, from the top; None: all.

    Returns:
        At least the rows that are needed, at the factor or, where that cannot be had, at a smaller one.

    Raises:
        PizaError: as open_rgb; damage below the rows that are needed may go unnoticed.
        ValueError: a factor that is none of FACTORS.
    """
    if factor not in FACTORS:
        raise ValueError(f"factor {factor} is none of {FACTORS}")
    size = photo_size(data, name)
    kept = size[1]
    if rows is not None:
        claimed = math.ceil(max(rows, 1) / factor + _ROW_MARGIN) * factor
        data, cut = claim_rows(data, claimed)
        kept = claimed - _ROW_MARGIN * factor if cut else kept
    with _opening(data, name) as image:
        found = _scale(image, factor)
        image.load()
        return Decoded(_to_rgb(image, name), size, found, kept)


def _scale(image: Image.Image, factor: int) -> int:
    """Have an image that is not loaded yet decoded at a factor, as far as it can be; the factor that it will have."""
    # Colours with half the columns but all the rows are scaled with the rest, instead of being kept at their own size.
    layers = getattr(image, "layer", None) or [(1, 1, 1)]  # of a JPEG: number, samples across and down, ...
    if not all(samples for layer in layers for samples in layer[1:3]):
        return 1  # damaged; decoding it says so
    across, down = (max(layer[axis] for layer in layers) // min(layer[axis] for layer in layers) for axis in (1, 2))
    factor //= max(across, down) // min(across, down)
    if factor < 2:
        return 1
    width, height = image.size
    drafted = image.draft(None, (max(width // factor, 1), max(height // factor, 1)))
    return round(width / drafted[1][2]) if drafted else 1


@contextlib.contextmanager
def _opening(data: bytes, name: str) -> Iterator[Image.Image]:
    """The image, its header read; whatever is wrong with it until the end of the block is a PizaError that names it."""
    if not data:
        raise PizaError(f"image {name} is empty (0 bytes); fetch it again or drop its records")
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            yield image
    except Image.UnidentifiedImageError as error:
        raise PizaError(f"image {name} is not a JPEG, PNG or other known image; fetch it again") from error
    except Image.DecompressionBombError as error:
        raise PizaError(
            f"image {name} is too large to decode safely: {error}; shrink it or cut it into parts"
        ) from error
    except _DAMAGE as error:
        raise PizaError(
            f"image {name} is damaged or cut short ({len(data)} bytes: {error}); fetch it again or drop its records"
        ) from error


def _to_rgb(image: Image.Image, name: str) -> Image.Image:
    if image.mode == "RGB":
        return image.copy() if image.readonly else image
    if image.mode.startswith("I"):  # 16-bit grey; Pillow's own conversion would clip it at 255
        grey = np.clip(np.asarray(image).astype(np.int64) >> 8, 0, 255).astype(np.uint8)
        return Image.fromarray(grey).convert("RGB")
    if image.mode == "F":
        raise PizaError(f"image {name} holds floating point numbers, not colours; save it as 8-bit RGB")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return image.convert("RGB")
