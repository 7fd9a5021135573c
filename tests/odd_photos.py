"""Photos that people really have, and files that only pretend to be photos."""

import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

GOOD = ("cmyk.jpg", "grey16.png", "rgb16.png", "turned.jpg", "transparent.png", "palette.gif", "gray_alpha.webp")
BAD = {
    "huge.png": "pixels|too large",
    "text.jpg": "is not a",
    "cut.jpg": "damaged or cut short",
    "empty.png": "empty",
    "program.eps": "is not a",
}


def write(folder: Path, photo: np.ndarray) -> None:
    """All of them from one photo, uint8 [H, W, 3]; each shows it upright to a viewer."""
    image = Image.fromarray(photo)
    image.convert("CMYK").save(folder / "cmyk.jpg", quality=95)
    Image.fromarray(photo[..., 1].astype(np.uint16) * 257).save(folder / "grey16.png")
    (folder / "rgb16.png").write_bytes(png(photo.astype(">u2") * 257))
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying on its side
    Image.fromarray(np.ascontiguousarray(np.rot90(photo))).save(folder / "turned.jpg", quality=95, exif=exif)
    layer = image.convert("RGBA")
    layer.putpixel((0, 0), (0, 0, 0, 0))
    layer.save(folder / "transparent.png")
    image.quantize(255).save(folder / "palette.gif")
    image.convert("LA").save(folder / "gray_alpha.webp", lossless=True)
    (folder / "huge.png").write_bytes(bomb(30_000))
    (folder / "text.jpg").write_text("The red car, said in words and not in pixels.\n")
    (folder / "cut.jpg").write_bytes((folder / "cmyk.jpg").read_bytes()[:2000])
    (folder / "empty.png").write_bytes(b"")
    (folder / "program.eps").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n")


def png(values: np.ndarray) -> bytes:
    """A PNG of 16 bits a channel, big-endian [H, W, 3], which Pillow itself does not write."""
    rows = b"".join(b"\0" + row.tobytes() for row in values.astype(">u2"))
    return _png(values.shape[1], values.shape[0], 16, 2, zlib.compress(rows))


def bomb(side: int) -> bytes:
    """A valid white PNG of side x side pixels, 1 bit each, in about a hundred kilobytes."""
    packer = zlib.compressobj(9)
    row = b"\0" + b"\xff" * (-(-side // 8))
    data = b"".join(packer.compress(row) for _ in range(side)) + packer.flush()
    return _png(side, side, 1, 0, data)


def _png(width: int, height: int, bits: int, colour: int, data: bytes) -> bytes:
    chunks = ((b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)), (b"IDAT", data), (b"IEND", b""))
    body = (
        struct.pack(">I", len(part)) + kind + part + struct.pack(">I", zlib.crc32(kind + part)) for kind, part in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(body)
