"""A few drawn photos with one coloured target each, as the pipeline's random-access source."""

import io

import numpy as np
from PIL import Image, ImageDraw

COLOURS = ("red", "green", "blue", "yellow", "orange", "purple", "white", "gray")
TEXTS = [f"The {colour} car on the dark road." for colour in COLOURS]


def encoded(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def record(index: int, size: tuple[int, int] = (400, 300), target: int = 12) -> dict:
    """Record number index: a photo with a filled square of side target, somewhere."""
    rng = np.random.default_rng(index)
    x, y = (int(rng.integers(0, side - target)) for side in size)
    image = Image.new("RGB", size, (40, 40, 60))
    colour = COLOURS[index % len(COLOURS)]
    ImageDraw.Draw(image).rectangle((x, y, x + target - 1, y + target - 1), fill=colour)
    box = np.array([x, y, x + target, y + target], np.float32)
    text = TEXTS[index % len(TEXTS)]
    return {"image": encoded(image), "name": f"{index}.png", "id": 100 + index, "expression": text, "box_xyxy": box}


class SmallSource:
    """num_records records, each a photo of its own; changes maps an index to fields that differ."""

    def __init__(self, num_records: int, size: tuple[int, int] = (400, 300), changes: dict | None = None):
        self.num_records, self.size, self.changes = num_records, size, changes or {}

    def __len__(self) -> int:
        return self.num_records

    def __getitem__(self, index: int) -> dict:
        if not 0 <= index < self.num_records:
            raise IndexError(index)
        return {**record(index, self.size), **self.changes.get(index, {})}
