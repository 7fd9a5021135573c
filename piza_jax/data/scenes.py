"""Small drawn street scenes with targets that one sentence names: for tests, dummy data and trainings from scratch."""

import json
import os
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from piza_jax.data.records import PHOTO_FOLDER, Record
from piza_jax.errors import PizaError

COLOURS = {
    "red": (214, 45, 42),
    "green": (42, 160, 72),
    "blue": (42, 92, 204),
    "yellow": (240, 206, 50),
    "white": (244, 244, 244),
    "purple": (142, 62, 172),
}
KINDS = ("car", "cone", "sign", "light")


def _draw_object(draw: ImageDraw.ImageDraw, kind: str, colour: tuple[int, int, int], box: tuple[int, ...]) -> None:
    """Draw an object that fills ``box`` exactly (x0, y0, x1, y1, the last pixel exclusive)."""
    x0, y0, x1, y1 = box[0], box[1], box[2] - 1, box[3] - 1
    width, height, ink = x1 - x0, y1 - y0, (24, 24, 28)
    if kind == "car":
        draw.rectangle((x0, y0 + height // 3, x1, y1 - height // 6), fill=colour)
        draw.rectangle((x0 + width // 5, y0, x1 - width // 5, y0 + height // 3), fill=colour)
        wheel = max(width // 5, 2)
        for left in (x0 + width // 8, x1 - width // 8 - wheel):
            draw.ellipse((left, y1 - wheel, left + wheel, y1), fill=ink)
    elif kind == "cone":
        draw.polygon((x0 + width // 2, y0, x0, y1, x1, y1), fill=colour)
        draw.rectangle((x0, y1 - max(height // 8, 1), x1, y1), fill=colour)
    elif kind == "sign":
        draw.ellipse((x0, y0, x1, y1), fill=colour, outline=ink)
    else:
        draw.rectangle((x0, y0, x1, y1), fill=ink)
        inner = max(min(width, height) // 4, 2)
        draw.ellipse((x0 + 2, y0 + 2, x1 - 2, y1 - inner), fill=colour)


def _backdrop(rng: np.random.Generator, size: tuple[int, int]) -> Image.Image:
    """Sky, houses and a road in perspective."""
    width, height = size
    image = Image.new("RGB", size, (168, 200, 226))
    draw = ImageDraw.Draw(image)
    horizon = int(height * rng.uniform(0.35, 0.45))
    left = 0
    while left < width:
        block = int(rng.integers(width // 14, width // 6))
        top = int(horizon - rng.integers(height // 12, height // 4))
        tone = int(rng.integers(120, 170))
        draw.rectangle((left, top, left + block, horizon), fill=(tone, tone - 8, tone - 20))
        left += block
    draw.rectangle((0, horizon, width, height), fill=(108, 128, 92))
    middle = int(width * rng.uniform(0.4, 0.6))
    draw.polygon((middle - width // 20, horizon, middle + width // 20, horizon, width, height, 0, height), (92, 92, 98))
    return image


def draw_scene(
    seed: int, size: tuple[int, int] = (1024, 768), num_objects: int = 8
) -> tuple[Image.Image, list[Record]]:
    """A scene and one record for each object; no two objects share colour and kind, so each sentence fits one only.

    Args:
        seed: the same seed gives the same scene everywhere.
        size: width and height in pixels.
        num_objects: at most ``len(COLOURS) * len(KINDS)``; targets are 2-4% of the width wide.

    Raises:
        PizaError: if the objects do not find room.
    """
    rng = np.random.default_rng(seed)
    image = _backdrop(rng, size)
    draw = ImageDraw.Draw(image)
    names = [(colour, kind) for colour in COLOURS for kind in KINDS]
    chosen = [names[index] for index in rng.permutation(len(names))[:num_objects]]
    placed: list[tuple[int, int, int, int]] = []
    records = []
    for number, (colour, kind) in enumerate(chosen):
        side = max(int(size[0] * rng.uniform(0.02, 0.04)), 8)
        wide, tall = {"car": (side, max(side * 2 // 3, 6)), "light": (max(side // 2, 6), side)}.get(kind, (side, side))
        for _ in range(200):
            x = int(rng.integers(0, size[0] - wide))
            y = int(rng.integers(size[1] // 3, size[1] - tall))
            box = (x, y, x + wide, y + tall)
            gap = side // 2
            if all(
                box[0] > other[2] + gap or box[2] < other[0] - gap or box[1] > other[3] + gap or box[3] < other[1] - gap
                for other in placed
            ):
                break
        else:
            raise PizaError(f"{num_objects} objects do not fit a scene of {size[0]} x {size[1]}; draw fewer")
        placed.append(box)
        _draw_object(draw, kind, COLOURS[colour], box)
        across = ("left", "middle", "right")[min(3 * (x + wide // 2) // size[0], 2)]
        text = f"The {colour} {kind} in the {across} part of the street."
        records.append(Record(number, f"{seed:06d}.png", text, tuple(map(float, box))))  # type: ignore[arg-type]
    return image, records


def write_scenes(
    directory: str | os.PathLike[str], num_photos: int, seed: int = 0, size: tuple[int, int] = (1024, 768)
) -> None:
    """Write a tree such as SOREC's: trainS.json, val.json and testA.json with JPEG photos at SODA-D's place.

    Of each five photos, three go to trainS, one to val and one to testA.
    """
    folder = Path(directory)
    photos = folder / PHOTO_FOLDER
    photos.mkdir(parents=True, exist_ok=True)
    items: dict[str, list[dict]] = {"trainS": [], "val": [], "testA": []}
    for number in range(num_photos):
        image, records = draw_scene(seed + number, size)
        name = f"{seed + number:06d}.jpg"
        image.save(photos / name, quality=90)
        split = ("trainS", "val", "testA", "trainS", "trainS")[number % 5]
        for record in records:
            x0, y0, x1, y1 = map(int, record.box_xyxy)
            box = [x0, y0, x1 - x0, y1 - y0]
            items[split].append({"image": name, "bbox": box, "ref": record.expression, "id": len(items[split])})
    for split, entries in items.items():
        (folder / f"{split}.json").write_text(json.dumps(entries), encoding="utf-8")
