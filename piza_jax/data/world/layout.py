"""From a seed to a scene: streets, buildings, poles and vehicles, with groups of small look-alikes about them."""

import math

import numpy as np

from piza_jax.data.world.groups import Palette, make_palette
from piza_jax.data.world.kinds import BUILDINGS, COLOURS, KIOSK_SIZE, SMALL, VEHICLE_SIZES, VEHICLES, WALLS
from piza_jax.data.world.scene import HEIGHT, WIDTH, Box, Scene, Street, Thing

# Sizes of small things in the scene, square pixels: 0.022% to 0.095% of it.
MIN_AREA, MAX_AREA = 700, 3000
_ROWS = (900, 1078, 1272, 1484)  # y on which vehicles stand, in four rows
_FAR_SCALE, _NEAR_SCALE = 29, 53  # pixels in a metre, at the first and at the last row


def make_scene(seed: int, rare: bool = False) -> Scene:
    """The scene of a seed.

    Args:
        seed: 0 or more; the same seed gives the same scene everywhere.
        rare: fill it with the kinds that are rare elsewhere.
    """
    rng = np.random.default_rng([seed, int(rare)])
    return _Builder(rng, make_palette(rng, rare)).scene(seed)


def scale_at(y: int) -> int:
    """Pixels in a metre for a thing that stands at a height y."""
    return _FAR_SCALE + (_NEAR_SCALE - _FAR_SCALE) * (min(max(y, 860), HEIGHT) - _ROWS[0]) // (_ROWS[-1] - _ROWS[0])


class _Builder:
    """A scene in the making; ``taken`` are boxes that nothing small may touch."""

    def __init__(self, rng: np.random.Generator, palette: Palette):
        self.rng, self.palette = rng, palette
        self.large: list[Thing] = []
        self.small: list[Thing] = []
        self.taken: list[Box] = []

    def scene(self, seed: int) -> Scene:
        street = self._street()
        self._buildings(street)
        poles = self._poles(street)
        walls = [thing for thing in self.large if thing.kind in BUILDINGS]
        for pole in poles:
            if self._happens(75):
                self._on_pole(pole)
        self._vehicles(street)
        for pole in poles:
            if self._happens(40):
                self._row(pole.centre[0] - int(self.rng.integers(110, 150)), pole.box[3], 1, 3)
        for wall in walls:
            if wall.band != (0, 0):
                self._on_wall(wall)
            if self._happens(45):
                left, right = wall.box[0], wall.box[2]
                start = left + int(self.rng.integers(10, max((right - left) // 3, 11)))
                self._row(start, street.kerb + int(self.rng.integers(66, 92)), 1, 3, limit=right)
        things = sorted(self.large, key=lambda thing: thing.box[3]) + self.small
        return Scene(seed, street, tuple(things))

    def _happens(self, percent: int) -> bool:
        return int(self.rng.integers(100)) < percent

    def _pick(self, choices: tuple[str, ...]) -> str:
        return choices[int(self.rng.integers(len(choices)))]

    def _street(self) -> Street:
        rng = self.rng
        kerb, vanish = int(rng.integers(650, 700)), int(rng.integers(620, 1430))
        half_top, half_bottom = int(rng.integers(120, 190)), int(rng.integers(560, 820))
        middle = (vanish + WIDTH // 2) // 2
        skies = ((150, 190, 228), (186, 200, 212), (236, 190, 160), (126, 142, 176), (206, 222, 236))
        grounds = ((164, 160, 152), (146, 152, 128), (178, 166, 146), (150, 150, 156))
        tints = ((100, 100, 100), (97, 97, 100), (100, 97, 90), (90, 92, 98), (100, 99, 95))
        grey = int(rng.integers(84, 108))
        return Street(
            kerb=kerb,
            vanish_x=vanish,
            road_top=(vanish - half_top, vanish + half_top),
            road_bottom=(middle - half_bottom, middle + half_bottom),
            sky=skies[int(rng.integers(len(skies)))],
            ground=grounds[int(rng.integers(len(grounds)))],
            road=(grey, grey, grey + 4),
            tint=tints[int(rng.integers(len(tints)))],
            texture=int(rng.integers(2**31)),
        )

    def _buildings(self, street: Street) -> None:
        rng = self.rng
        left = -int(rng.integers(0, 120))
        names = [(kind, wall) for kind in BUILDINGS for wall in WALLS]
        order = [names[index] for index in rng.permutation(len(names))]
        while left < WIDTH - 60:
            width = int(rng.integers(230, 390))
            if left + width > street.road_top[0] - 10 and left < street.road_top[1]:
                room = street.road_top[0] - 10 - left
                if room < 190:
                    left = street.road_top[1] + int(rng.integers(10, 30))
                    continue
                width = min(width, room)
            kind, colour = order.pop() if order and self._happens(85) else names[int(rng.integers(len(names)))]
            low, high = (300, 420) if kind == "house" else (430, 600)
            height = int(rng.integers(low, high))
            band_top = int(rng.integers(380, 640)) if kind == "house" else int(rng.integers(240, 640))
            band = (band_top, band_top + 84_000 // height // 2 * 2) if self._happens(60) else (0, 0)
            box = (left, street.kerb - height, left + width, street.kerb)
            self._add_large(kind, colour, box, band=band)
            left += width + int(rng.integers(8, 46))

    def _poles(self, street: Street) -> list[Thing]:
        rng = self.rng
        found: list[Thing] = []
        wanted = int(rng.integers(3, 6))
        for _ in range(60):
            x, y = int(rng.integers(70, WIDTH - 70)), int(rng.integers(street.kerb + 110, 1330))
            scale = scale_at(y)
            road_left, road_right = street.road_at(y)
            if road_left - 20 < x < road_right + 20 or any(abs(x - pole.centre[0]) < 210 for pole in found):
                continue
            height, half = scale * int(rng.integers(80, 100)) // 10, scale * 7 // 10
            box = (x - half, y - height, x + half, y)
            found.append(self._add_large("pole", "", box))
            self.taken.append((x - scale // 4, y - height, x + scale // 4, y + 4))
            if len(found) == wanted:
                break
        return found

    def _vehicles(self, street: Street) -> None:
        rng = self.rng
        names = [(kind, colour) for kind in VEHICLES for colour in COLOURS] + [("kiosk", colour) for colour in COLOURS]
        order = [names[index] for index in rng.permutation(len(names))]
        for row in _ROWS:
            x = int(rng.integers(10, 330))
            while x < WIDTH - 120:
                kind, colour = order.pop() if order and self._happens(80) else names[int(rng.integers(len(names)))]
                y = row + int(rng.integers(-16, 17))
                scale = scale_at(y)
                road_left, road_right = street.road_at(y)
                on_road = road_left < x + 2 * scale < road_right - 2 * scale
                if kind == "kiosk":
                    if on_road:
                        kind = "van"
                    view, (wide, tall) = "", KIOSK_SIZE
                if kind != "kiosk":
                    view = "rear" if on_road and self._happens(55) else "side"
                    wide, tall = VEHICLE_SIZES[view][kind]
                width, height = round(wide * scale), round(tall * scale)
                if self._happens(52):
                    x = self._row(x, y, 2, 4) + int(rng.integers(24, 60))
                if kind == "kiosk" and road_left - 10 < x + width and x < road_right + 10:
                    x = max(x, road_right + 16)
                box = (x, y - height, x + width, y)
                if x + width > WIDTH + width // 5:
                    break
                clash = next((other for other in self.taken if _touch(box, other, 10)), None)
                if clash is not None:
                    x = max(clash[2] + 14, x + 20)
                    continue
                self._add_large(kind, colour, box, view=view, flip=self._happens(50))
                self.taken.append(box)
                x += width
                if self._happens(52):
                    x = self._row(x + int(rng.integers(24, 60)), y, 2, 4)
                x += int(rng.integers(90, 420))

    def _add_large(
        self,
        kind: str,
        colour: str,
        box: Box,
        view: str = "",
        flip: bool = False,
        band: tuple[int, int] = (0, 0),
    ) -> Thing:
        thing = Thing(kind, colour, None, box, True, view, flip, band, int(self.rng.integers(24)))
        self.large.append(thing)
        return thing

    def _row(self, x: float, y: int, least: int, most: int, limit: int = WIDTH) -> int:
        """A group that stands on the ground from x on; returns where it ends."""
        end = int(x)
        for name in self.palette.group(self.rng, int(self.rng.integers(least, most + 1)), mounted=False):
            foot = y + int(self.rng.integers(-12, 13))
            width, height = self._size(name[0], scale_at(foot))
            box = (end, foot - height, end + width, foot)
            if box[2] > limit - 4:
                break
            if self._add_small(name, box):
                end = box[2] + int(self.rng.integers(14, 34))
            else:
                end += 24
        return end

    def _on_wall(self, wall: Thing) -> None:
        """A group in a row on the part of a wall that has no windows."""
        left, top, right, bottom = wall.box
        height = bottom - top
        middle = top + height * (wall.band[0] + wall.band[1]) // 2000
        x = max(left, 0) + int(self.rng.integers(16, max((right - left) // 3, 17)))
        for name in self.palette.group(self.rng, int(self.rng.integers(2, 5)), mounted=True):
            width, tall = self._size(name[0], 34)
            if x + width > min(right, WIDTH) - 14:
                break
            y = middle - tall // 2 + int(self.rng.integers(-5, 6))
            self._add_small(name, (x, y, x + width, y + tall))
            x += width + int(self.rng.integers(18, 44))

    def _on_pole(self, pole: Thing) -> None:
        """A group one below the other on a pole."""
        middle, top, bottom = int(pole.centre[0]), pole.box[1], pole.box[3]
        y = top + (bottom - top) * int(self.rng.integers(8, 30)) // 100
        for name in self.palette.group(self.rng, int(self.rng.integers(1, 4)), mounted=True):
            width, height = self._size(name[0], scale_at(bottom))
            if y + height > bottom - 110:
                break
            left = middle - scale_at(bottom) // 8 if name[0] == "flag" else middle - width // 2
            self._add_small(name, (left, y, left + width, y + height), on=pole)
            y += height + int(self.rng.integers(6, 20))

    def _size(self, kind: str, scale: int) -> tuple[int, int]:
        """Width and height in pixels: somewhat more than a square metre of box, within the limits."""
        wanted = scale * scale * int(self.rng.integers(110, 146)) // 100
        area, aspect = min(max(wanted, MIN_AREA + 80), MAX_AREA - 120), SMALL[kind].aspect
        height = round(math.sqrt(area / aspect))
        return round(aspect * height), height

    def _add_small(self, name: tuple[str, str, str | None], box: Box, on: Thing | None = None) -> bool:
        """Add a thing where it has room and lies inside the scene."""
        if box[0] < 6 or box[1] < 6 or box[2] > WIDTH - 6 or box[3] > HEIGHT - 6:
            return False
        own = on.centre[0] if on else None
        for other in self.taken:
            if own is not None and other[0] < own < other[2] and other[3] - other[1] > 200:
                continue
            if _touch(box, other, 4):
                return False
        self.small.append(Thing(*name, box))
        self.taken.append(box)
        return True


def _touch(one: Box, other: Box, gap: int) -> bool:
    return one[0] < other[2] + gap and other[0] < one[2] + gap and one[1] < other[3] + gap and other[1] < one[3] + gap
