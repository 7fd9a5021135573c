"""Encoded photos to RGB pixels.

Boxes of SOREC, as of most data sets, count in the pixels as they are stored. So EXIF orientation is not applied unless
it is asked for: turning a photo without its boxes would put every box in the wrong place.
"""

import io
import struct
import zlib
from typing import Any, Literal

import numpy as np
from PIL import Image, ImageOps

from piza_jax.errors import PizaError

Orientation = Literal["stored", "upright"]

# Photos come in these (a phone's MPO counts as JPEG); Pillow knows others whose decoders start other programs.
FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "TIFF", "BMP", "GIF", "PPM", "JPEG2000")

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
    if not data:
        raise PizaError(f"image {name} is empty (0 bytes); fetch it again or drop its records")
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            if max_pixels is not None and image.width * image.height > max_pixels:
                raise PizaError(
                    f"image {name} has {image.width} x {image.height} pixels and the limit is "
                    f"{max_pixels / 1e6:g} million; shrink it or cut it into parts"
                )
            image.load()
            return _to_rgb(ImageOps.exif_transpose(image) if orientation == "upright" else image, name)
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


def decode_rgb(data: bytes, name: str, orientation: Orientation = "stored", **limits: Any) -> np.ndarray:
    """Decode an image to uint8 [H, W, 3] RGB; arguments and errors as open_rgb."""
    return np.array(open_rgb(data, name, orientation, **limits))


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
