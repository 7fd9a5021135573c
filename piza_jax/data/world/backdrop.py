"""What lies behind and below the things: sky, trees, ground, the road and its lines, shadows."""

from collections.abc import Callable
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw

from piza_jax.data.world.kinds import BUILDINGS, SMALL, Colour
from piza_jax.data.world.large_things import shade
from piza_jax.data.world.scene import HEIGHT, WIDTH, Scene, Street

Point = tuple[int, int]
At = Callable[[int, int], Point]  # from the scene's pixels to the picture's

_GRAIN = 256  # side of the tile that gives ground and road their grain, pixels of the picture
_PAINT: Colour = (226, 226, 220)
_HAZE = 120  # pixels that the hills and the end of the road stand above the kerb


def draw_backdrop(image: Image.Image, street: Street, at: At) -> None:
    """Draw a street without its things over a whole picture."""
    rng = np.random.default_rng(street.texture)
    draw = ImageDraw.Draw(image)
    _sky(draw, street, at, image.width, rng)
    _hills(draw, street, at, rng)
    _ground(image, street, at)
    _road(image, street, at)
    _lines(draw, street, at)
    if int(rng.integers(100)) < 45:
        _crossing(draw, street, at, int(rng.integers(street.kerb + 60, HEIGHT - 160)))


def draw_shadows(image: Image.Image, scene: Scene, at: At) -> None:
    """A dark spot on the ground under everything that stands there."""
    for thing in scene.things:
        if thing.kind in BUILDINGS or (thing.kind in SMALL and SMALL[thing.kind].mounted):
            continue
        x0, _, x1, y1 = thing.box
        deep = min((x1 - x0) // 10, 14)
        left, top = at(x0 - deep, y1 - deep)
        right, bottom = at(x1 + deep, y1 + deep)
        spot = Image.new("L", (right - left + 1, bottom - top + 1), 0)
        ImageDraw.Draw(spot).ellipse((0, 0, spot.width - 1, spot.height - 1), 90)
        image.paste((0, 0, 0), (left, top), spot)


def _sky(draw: ImageDraw.ImageDraw, street: Street, at: At, width: int, rng: np.random.Generator) -> None:
    """Brighter towards the ground, with some clouds."""
    bands = 14
    for step in range(bands):
        top, bottom = at(0, street.kerb * step // bands)[1], at(0, street.kerb * (step + 1) // bands)[1]
        draw.rectangle((0, top, width, bottom), shade(street.sky, 92 + step))
    for _ in range(int(rng.integers(2, 7))):
        x, y, wide = int(rng.integers(0, WIDTH)), int(rng.integers(10, 260)), int(rng.integers(140, 380))
        for shift in (0, wide // 3, wide // 2):
            corners = at(x + shift, y - shift // 6), at(x + shift + wide // 2, y + wide // 6)
            draw.ellipse((*corners[0], *corners[1]), shade(street.sky, 110))


def _hills(draw: ImageDraw.ImageDraw, street: Street, at: At, rng: np.random.Generator) -> None:
    """Trees at the horizon."""
    for x in range(-40, WIDTH, 76):
        half, top = int(rng.integers(50, 90)), street.kerb - _HAZE + int(rng.integers(-60, 30))
        corners = at(x - half, top), at(x + half, street.kerb + 60)
        draw.ellipse((*corners[0], *corners[1]), (92, 126 + int(rng.integers(24)), 88))


def _ground(image: Image.Image, street: Street, at: At) -> None:
    """Grained ground, with a pale pavement along the buildings."""
    floor, edge = at(0, street.kerb)[1], at(0, street.kerb + 26)[1]
    if floor < image.height:
        _tile(image, street.ground, max(floor, 0))
        if edge > max(floor, 0):
            ImageDraw.Draw(image).rectangle((0, floor, image.width, edge), shade(street.ground, 112))


def _road(image: Image.Image, street: Street, at: At) -> None:
    """Grained road from the lower side to the kerb, and plain from there to where it vanishes."""
    far = [(street.vanish_x + side, street.kerb - _HAZE) for side in (-14, 14)]
    far += [(street.road_top[1], street.kerb), (street.road_top[0], street.kerb)]
    ImageDraw.Draw(image).polygon([at(*corner) for corner in far], street.road)
    near = [at(x, street.kerb) for x in street.road_top] + [at(x, HEIGHT) for x in reversed(street.road_bottom)]
    left, right = max(min(x for x, _ in near), 0), min(max(x for x, _ in near), image.width)
    top = max(near[0][1], 0)
    if left < right and top < image.height:
        mask = Image.new("L", (right - left, image.height - top), 0)
        ImageDraw.Draw(mask).polygon([(x - left, y - top) for x, y in near], 255)
        surface = Image.new("RGB", mask.size)
        _tile(surface, street.road, 0)
        image.paste(surface, (left, top), mask)


def _lines(draw: ImageDraw.ImageDraw, street: Street, at: At) -> None:
    """Lines along both sides of the road and dashes between its lanes."""
    for part in (0, 100):
        _stripe(draw, street, at, part, street.kerb, HEIGHT, 1)
    y = street.kerb + 10
    while y < HEIGHT:
        length = 16 + (y - street.kerb) // 9
        for part in (33, 67):
            _stripe(draw, street, at, part, y, min(y + length, HEIGHT), 1)
        y += 2 * length + 14


def _crossing(draw: ImageDraw.ImageDraw, street: Street, at: At, top: int) -> None:
    """White bars for people to cross on."""
    bottom = top + 30 + (top - street.kerb) // 9
    for part in range(6, 100, 8):
        _stripe(draw, street, at, part, top, bottom, 3)


def _stripe(draw: ImageDraw.ImageDraw, street: Street, at: At, part: int, top: int, bottom: int, widths: int) -> None:
    """Paint along the road, ``part`` percent of the way from its left to its right."""
    ends = []
    for y in (top, bottom):
        left, right = street.road_at(y)
        half = (2 + (y - street.kerb) // 130) * widths
        middle = left + (right - left) * part // 100
        ends.append((at(middle - half, y), at(middle + half, y)))
    draw.polygon([ends[0][0], ends[0][1], ends[1][1], ends[1][0]], _PAINT)


@lru_cache(maxsize=1)
def _grain() -> Image.Image:
    """Grey noise around 128, in clumps of two pixels."""
    noise = np.random.default_rng(0).integers(122, 135, (_GRAIN // 2, _GRAIN // 2), dtype=np.uint8)
    return Image.fromarray(noise).resize((_GRAIN, _GRAIN), Image.Resampling.BILINEAR)


def _tile(image: Image.Image, colour: Colour, top: int) -> None:
    """Fill an image from a row on with a grained colour."""
    tables = [[min(max(level - 128 + part, 0), 255) for level in range(256)] for part in colour]
    tile = Image.merge("RGB", [_grain().point(table) for table in tables])
    for y in range(top, image.height, _GRAIN):
        for x in range(0, image.width, _GRAIN):
            image.paste(tile, (x, y))
