"""From a scene, or a window of it, to a picture: only integers and Pillow's own drawing, the same everywhere."""

from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw

from piza_jax.data.world.kinds import BUILDINGS, SMALL
from piza_jax.data.world.large_things import draw_large, shade
from piza_jax.data.world.pen import Pen
from piza_jax.data.world.scene import HEIGHT, WIDTH, Box, Scene, Thing
from piza_jax.data.world.small_things import draw_small

_GRAIN = 256  # side of the tile that gives ground and road their grain, pixels


def render(scene: Scene, window: Box = (0, 0, WIDTH, HEIGHT), size: tuple[int, int] = (WIDTH, HEIGHT)) -> Image.Image:
    """Draw what lies in a window of the scene.

    Args:
        scene: what there is.
        window: x0, y0, x1, y1 in the scene's pixels.
        size: width and height of the picture; of the window's shape, or things are stretched.

    Returns:
        RGB image.
    """
    image = Image.new("RGB", size, scene.street.sky)
    _backdrop(image, scene, window)
    _shadows(image, scene, window)
    for thing in scene.things:
        draw_thing(image, thing, place(thing.box, window, size))
    table = [min(level * percent // 100, 255) for percent in scene.street.tint for level in range(256)]
    return image.point(table) if scene.street.tint != (100, 100, 100) else image


def place(box: Box, window: Box, size: tuple[int, int]) -> Box:
    """Where a box of the scene lies in a picture of a window, in whole pixels of the picture."""
    across, down = window[2] - window[0], window[3] - window[1]
    x0, x1 = (((x - window[0]) * size[0] * 2 + across) // (2 * across) for x in (box[0], box[2]))
    y0, y1 = (((y - window[1]) * size[1] * 2 + down) // (2 * down) for y in (box[1], box[3]))
    return x0, y0, x1, y1


def draw_thing(image: Image.Image, thing: Thing, box: Box) -> None:
    """Draw a thing into a box of an image, which it fills from side to side; what lies outside is cut off."""
    width, height = box[2] - box[0], box[3] - box[1]
    seen = max(box[0], 0), max(box[1], 0), min(box[2], image.width), min(box[3], image.height)
    if width < 1 or height < 1 or seen[0] >= seen[2] or seen[1] >= seen[3]:
        return
    # Small things are drawn four times larger and shrunk, which smooths their edges; large ones need less.
    factor = 1 if thing.kind in ("house", "tower", "pole") and width * height > 1600 else 2 if thing.large else 4
    patch = image.crop(box).resize((width * factor, height * factor), Image.Resampling.NEAREST)
    pen = Pen(patch, max(factor * (1 + max(width, height) // 120), 2), thing.flip)
    if thing.kind in SMALL:
        draw_small(pen, thing.kind, thing.colour, thing.detail)
    else:
        band = thing.band[0] / 1000, thing.band[1] / 1000
        draw_large(pen, thing.kind, thing.colour, thing.view, band, thing.style)
    patch = patch.reduce(factor) if factor > 1 else patch
    part = patch.crop((seen[0] - box[0], seen[1] - box[1], seen[2] - box[0], seen[3] - box[1]))
    image.paste(part, seen[:2])


@lru_cache(maxsize=2)
def _grain(seed: int) -> Image.Image:
    """Grey noise around 128, in clumps of two pixels."""
    noise = np.random.default_rng(seed).integers(122, 135, (_GRAIN // 2, _GRAIN // 2), dtype=np.uint8)
    return Image.fromarray(noise).resize((_GRAIN, _GRAIN), Image.Resampling.BILINEAR)


def _grained(colour: tuple[int, int, int], size: tuple[int, int]) -> Image.Image:
    """A surface of a colour with grain."""
    tile = _grain(0)
    coloured = Image.merge(
        "RGB", [tile.point([min(max(level - 128 + part, 0), 255) for level in range(256)]) for part in colour]
    )
    surface = Image.new("RGB", size)
    for y in range(0, size[1], _GRAIN):
        for x in range(0, size[0], _GRAIN):
            surface.paste(coloured, (x, y))
    return surface


def _backdrop(image: Image.Image, scene: Scene, window: Box) -> None:
    """Sky, trees, ground and the road with its lines."""
    street, size = scene.street, image.size
    rng = np.random.default_rng(street.texture)

    def at(x: int, y: int) -> tuple[int, int]:
        return place((x, y, x, y), window, size)[:2]

    draw = ImageDraw.Draw(image)
    bands = 14
    for step in range(bands):
        top, bottom = at(0, street.kerb * step // bands)[1], at(0, street.kerb * (step + 1) // bands)[1]
        draw.rectangle((0, top, size[0], bottom), shade(street.sky, 92 + step))
    for _ in range(int(rng.integers(2, 7))):
        x, y, wide = int(rng.integers(0, WIDTH)), int(rng.integers(10, 260)), int(rng.integers(140, 380))
        for shift in (0, wide // 3, wide // 2):
            draw.ellipse(
                (*at(x + shift, y - shift // 6), *at(x + shift + wide // 2, y + wide // 6)), shade(street.sky, 110)
            )
    horizon = street.kerb - 120
    for x in range(-40, WIDTH, 76):
        half, top = int(rng.integers(50, 90)), horizon + int(rng.integers(-60, 30))
        draw.ellipse((*at(x - half, top), *at(x + half, street.kerb + 60)), (92, 126 + int(rng.integers(24)), 88))
    floor = at(0, street.kerb)[1]
    if floor < size[1]:
        top = max(floor, 0)
        image.paste(_grained(street.ground, (size[0], size[1] - top)), (0, top))
    corners = [(street.road_top[0], street.kerb), (street.road_top[1], street.kerb)]
    corners += [(street.road_bottom[1], HEIGHT), (street.road_bottom[0], HEIGHT)]
    if floor < size[1]:
        mask = Image.new("L", (size[0], size[1] - top), 0)
        points = [(x, y - top) for x, y in (at(*corner) for corner in corners)]
        ImageDraw.Draw(mask).polygon(points, 255)
        image.paste(_grained(street.road, mask.size), (0, top), mask)
        edge = at(0, street.kerb + 26)[1]
        for left, right in ((0, at(*corners[0])[0]), (at(*corners[1])[0], size[0])):
            if right > left and edge >= floor:
                draw.rectangle((left, floor, right, edge), shade(street.ground, 112))
    far = [(street.vanish_x - 14, horizon), (street.vanish_x + 14, horizon), corners[1], corners[0]]
    draw.polygon([at(*corner) for corner in far], street.road)
    for part in (0, 100):
        _line(draw, scene, part, street.kerb, HEIGHT, at, (214, 212, 204))
    y = street.kerb + 10
    while y < HEIGHT:
        length = 16 + (y - street.kerb) // 9
        for part in (33, 67):
            _line(draw, scene, part, y, min(y + length, HEIGHT), at, (226, 226, 220))
        y += 2 * length + 14


def _shadows(image: Image.Image, scene: Scene, window: Box) -> None:
    """A dark spot on the ground under everything that stands there."""
    for thing in scene.things:
        if thing.kind in BUILDINGS or (thing.kind in SMALL and SMALL[thing.kind].mounted):
            continue
        x0, _, x1, y1 = thing.box
        deep = min((x1 - x0) // 10, 14)
        box = place((x0 - deep, y1 - deep, x1 + deep, y1 + deep), window, image.size)
        spot = Image.new("L", (box[2] - box[0] + 1, box[3] - box[1] + 1), 0)
        ImageDraw.Draw(spot).ellipse((0, 0, spot.width - 1, spot.height - 1), 90)
        image.paste((0, 0, 0), box[:2], spot)


def _line(draw: ImageDraw.ImageDraw, scene: Scene, part: int, top: int, bottom: int, at, colour) -> None:
    """A painted line along the road, ``part`` percent of the way from its left to its right."""
    street, ends = scene.street, []
    for y in (top, bottom):
        left, right = street.road_at(y)
        half = 2 + (y - street.kerb) // 130
        middle = left + (right - left) * part // 100
        ends.append((at(middle - half, y), at(middle + half, y)))
    draw.polygon([ends[0][0], ends[0][1], ends[1][1], ends[1][0]], colour)
