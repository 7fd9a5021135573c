"""What an expression says, as data, and which things of a scene it is true of.

Every relation is judged twice: strictly, where nobody would object to it, and loosely, where somebody might still think
of it. An expression singles out a thing if it is strictly true of it and not even loosely true of any other.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from piza_jax.data.world.kinds import BUILDINGS, SMALL, VEHICLES
from piza_jax.data.world.scene import WIDTH, Scene, Thing

ZONES = ("left", "right", "between", "wall", "front", "pole", "foot")
ORDERS = ("leftmost", "rightmost", "highest", "lowest")
NEIGHBOURS = ("left", "right", "above", "below")
ORDER_MARGIN = 15  # pixels by which the leftmost thing is left of the next


@dataclass(frozen=True)
class Ref:
    """A description of one thing; what is None is not said.

    Attributes:
        kind: name of the kind.
        colour: name of the colour.
        detail: one of the kind's details.
        half: "left" or "right" half of the picture (large things).
        depth: "foreground" or "background" (large things).
        ordinal: number from the left among the poles of the scene, from 1; -1 is the last.
    """

    kind: str
    colour: str | None = None
    detail: str | None = None
    half: str | None = None
    depth: str | None = None
    ordinal: int | None = None


@dataclass(frozen=True)
class Meaning:
    """What an expression says.

    Attributes:
        target: what is looked for.
        zone: where it is as seen from the anchor; None where the target is described by itself.
        anchors: one thing, two for "between" (the left one first), none without a zone.
        order: which one of those that fit all the rest.
        neighbour: a small thing beside the target, and on which side of the neighbour the target is.
    """

    target: Ref
    zone: str | None = None
    anchors: tuple[Ref, ...] = ()
    order: str | None = None
    neighbour: tuple[str, Ref] | None = None


class SceneIndex:
    """Answers about one scene, with a memory of what lies in the zones of its large things."""

    def __init__(self, scene: Scene):
        self.scene, self.things = scene, scene.things
        self._zones: dict[tuple[str, int, bool], frozenset[int]] = {}

    @cached_property
    def poles(self) -> list[int]:
        """Numbers of the poles, from left to right."""
        found = [number for number, thing in enumerate(self.things) if thing.kind == "pole"]
        return sorted(found, key=lambda number: self.things[number].centre[0])

    @cached_property
    def small(self) -> list[int]:
        """Numbers of the small things."""
        return [number for number, thing in enumerate(self.things) if not thing.large]

    @cached_property
    def large(self) -> list[int]:
        """Numbers of the large things."""
        return [number for number, thing in enumerate(self.things) if thing.large]

    def fits(self, number: int, ref: Ref, loose: bool) -> bool:
        """Whether a description is true of a thing."""
        thing = self.things[number]
        if thing.kind != ref.kind or (ref.colour or thing.colour) != thing.colour:
            return False
        if ref.detail is not None and ref.detail != thing.detail:
            return False
        if ref.ordinal is not None and self.poles[ref.ordinal - (ref.ordinal > 0)] != number:
            return False
        if ref.half is not None and not in_half(thing, ref.half, loose):
            return False
        return ref.depth is None or in_depth(thing, ref.depth, loose)

    def sole(self, ref: Ref) -> int | None:
        """The only large thing that a description may speak of, strictly; None where there is none or another."""
        may = [number for number in self.large if self.fits(number, ref, True)]
        return may[0] if len(may) == 1 and self.fits(may[0], ref, False) else None

    def zone(self, zone: str, anchor: int, loose: bool) -> frozenset[int]:
        """Numbers of the things in a zone ("between" apart) of a large thing."""
        key = zone, anchor, loose
        if key not in self._zones:
            place = self.things[anchor]
            inside = (n for n, thing in enumerate(self.things) if n != anchor and in_zone(thing, zone, place, loose))
            self._zones[key] = frozenset(inside)
        return self._zones[key]

    def members(self, zone: str | None, anchors: tuple[int, ...], loose: bool) -> Iterable[int]:
        """Numbers of the things in a zone, of two anchors where it is "between"; all things where it is None."""
        if zone is None:
            return range(len(self.things))
        if zone == "between":
            return sorted(self.zone("right", anchors[0], loose) & self.zone("left", anchors[1], loose))
        return sorted(self.zone(zone, anchors[0], loose))

    def referent(self, meaning: Meaning) -> int | None:
        """The number of the one thing that a meaning singles out, or None."""
        anchors = tuple(self.sole(ref) for ref in meaning.anchors)
        if None in anchors:
            return None
        may = self._true_of(meaning, anchors, True)  # type: ignore[arg-type]
        strict = self._true_of(meaning, anchors, False)  # type: ignore[arg-type]
        if meaning.order is not None:
            return first_in_order(self.things, may, meaning.order, strict)
        return may[0] if len(may) == 1 and strict == may else None

    def all_of(self, meaning: Meaning) -> list[int] | None:
        """All things that a meaning without an order is true of; None where somebody might object."""
        anchors = tuple(self.sole(ref) for ref in meaning.anchors)
        if None in anchors:
            return None
        strict = self._true_of(meaning, anchors, False)  # type: ignore[arg-type]
        return strict if strict == self._true_of(meaning, anchors, True) else None  # type: ignore[arg-type]

    def _true_of(self, meaning: Meaning, anchors: tuple[int, ...], loose: bool) -> list[int]:
        found = [n for n in self.members(meaning.zone, anchors, loose) if self.fits(n, meaning.target, loose)]
        if meaning.neighbour is None:
            return found
        side, ref = meaning.neighbour
        beside = [number for number in self.small if self.fits(number, ref, loose)]
        return [
            n for n in found if any(m != n and is_beside(self.things[n], side, self.things[m], loose) for m in beside)
        ]


def first_in_order(things: tuple[Thing, ...], may: list[int], order: str, strict: list[int]) -> int | None:
    """The clear first of the things that may be meant, if it is strictly one and not the only strict one."""
    axis, sign = {"leftmost": (0, 1), "rightmost": (0, -1), "highest": (1, 1), "lowest": (1, -1)}[order]
    ranked = sorted(may, key=lambda number: sign * things[number].centre[axis])
    if len(strict) < 2 or ranked[0] not in strict:
        return None
    lead = sign * (things[ranked[1]].centre[axis] - things[ranked[0]].centre[axis])
    return ranked[0] if lead >= ORDER_MARGIN else None


def in_half(thing: Thing, half: str, loose: bool) -> bool:
    """Whether the middle of a thing lies in a half of the picture; strictly, 140 px or more from the middle line."""
    ahead = thing.centre[0] - WIDTH // 2
    return (ahead if half == "right" else -ahead) >= (-60 if loose else 140)


def in_depth(thing: Thing, depth: str, loose: bool) -> bool:
    """Whether a thing stands in the two front rows, or in the very last."""
    y = thing.box[3]
    return y > (1130 if loose else 1200) if depth == "foreground" else y < (1010 if loose else 950)


def zones_of(kind: str) -> tuple[str, ...]:
    """The zones, "between" apart, that a large thing has."""
    if kind in BUILDINGS:
        return "wall", "front"
    if kind == "pole":
        return "pole", "foot"
    return ("left", "right") if kind in (*VEHICLES, "kiosk") else ()


def in_zone(thing: Thing, zone: str, anchor: Thing, loose: bool) -> bool:
    """Whether a thing lies in a zone of a large thing; all distances in pixels of the scene.

    Strictly, only what hangs is on walls and poles, and only what stands is anywhere else.
    """
    hangs = thing.kind in SMALL and SMALL[thing.kind].mounted
    if not loose and hangs != (zone in ("wall", "pole")):
        return False
    x0, y0, x1, y1 = thing.box
    a0, b0, a1, b1 = anchor.box
    middle = (x0 + x1) / 2
    if zone == "left" or zone == "right":
        gap = a0 - x1 if zone == "left" else x0 - a1
        return (-20 if loose else 0) <= gap <= (390 if loose else 290) and abs(y1 - b1) <= (110 if loose else 60)
    if zone == "wall":
        if loose:
            return a0 < middle < a1 and b0 < (y0 + y1) / 2 < b1
        return a0 <= x0 and x1 <= a1 and b0 <= y0 and y1 <= b1 - 60
    if zone == "front":
        slack = 30 if loose else -10
        return a0 - slack <= middle <= a1 + slack and (0 if loose else 30) <= y1 - b1 <= (170 if loose else 120)
    off = abs(middle - (a0 + a1) / 2)
    if zone == "pole":
        return off <= (70 if loose else 36) and b0 <= y0 and y1 <= b1 - (40 if loose else 80)
    return off <= (230 if loose else 140) and abs(y1 - b1) <= (100 if loose else 50)


def is_beside(thing: Thing, side: str, other: Thing, loose: bool) -> bool:
    """Whether a thing is directly left of, right of, above or below another small thing."""
    one, two = (thing.box, other.box) if side in ("left", "above") else (other.box, thing.box)
    low, high = (-15, 110) if loose else (0, 60)
    if side in ("left", "right"):
        level = abs((one[1] + one[3]) - (two[1] + two[3])) / 2
        return low <= two[0] - one[2] <= high and level <= (70 if loose else 40)
    across = abs((one[0] + one[2]) - (two[0] + two[2])) / 2
    return low <= two[1] - one[3] <= high and across <= (45 if loose else 25)
