"""From a meaning to an English sentence."""

import numpy as np

from piza_jax.data.world.kinds import SMALL
from piza_jax.data.world.meaning import Meaning, Ref

MIN_WORDS, MAX_WORDS = 10, 30

_NOUNS = {
    "cone": ("cone", "traffic cone"),
    "barrel": ("barrel", "drum"),
    "bin": ("bin", "trash bin"),
    "hydrant": ("hydrant", "fire hydrant"),
    "crate": ("crate", "box"),
    "person": ("person", "pedestrian"),
    "sign": ("sign", "traffic sign"),
    "light": ("traffic light",),
    "flag": ("flag", "banner"),
    "suitcase": ("suitcase", "travel case"),
    "chair": ("chair", "seat"),
    "parasol": ("parasol", "sunshade"),
    "bicycle": ("bicycle", "bike"),
    "bus": ("bus", "coach"),
    "truck": ("truck", "lorry"),
    "kiosk": ("kiosk", "booth"),
    "tower": ("tower", "tower block"),
    "pole": ("pole", "lamp post"),
}
_ORDINALS = {1: "first", 2: "second", 3: "third", 4: "fourth", 5: "fifth", -1: "last"}
_ZONES = {
    "left": ("to the left of", "left of", "on the left side of"),
    "right": ("to the right of", "right of", "on the right side of"),
    "between": ("between",),
    "wall": ("on the wall of", "on the front of", "mounted on"),
    "front": ("in front of", "just in front of"),
    "pole": ("on", "mounted on", "attached to"),
    "foot": ("at the foot of", "at the base of", "close to the foot of"),
}
_SIDES = {
    "left": ("directly left of", "just to the left of"),
    "right": ("directly right of", "just to the right of"),
    "above": ("directly above", "just above"),
    "below": ("directly below", "just below"),
}
_DETAILS = {"carrying": "with a bag", "hatted": "with a hat"}
_DEPTHS = {"foreground": ("in the foreground", "near the viewer"), "background": ("in the background", "far away")}
_HALVES = ("in the {} half of the picture", "in the {} part of the scene")


def say(meaning: Meaning, rng: np.random.Generator) -> str | None:
    """A sentence of MIN_WORDS to MAX_WORDS words for a meaning; None if no way of saying it has that length."""
    target = noun(meaning.target, rng, order=meaning.order)
    extra = ""
    if meaning.neighbour is not None:
        side, ref = meaning.neighbour
        extra = f"{_choose(_SIDES[side], rng)} {with_article(noun(ref, rng))}"
    ways = _plain_ways(target) if meaning.zone is None else _zone_ways(meaning, target, extra, rng)
    ways = [way for way in ways if MIN_WORDS <= len(way.split()) <= MAX_WORDS]
    if not ways:
        return None
    way = ways[int(rng.integers(len(ways)))]
    return way[0].upper() + way[1:] + "."


def say_all(zone: str, anchor: Ref, rng: np.random.Generator) -> str:
    """A sentence for everything in a zone of a thing."""
    return f"All the things {_choose(_ZONES[zone], rng)} the {noun(anchor, rng)}."


def say_beside(target: Ref, side: str, other: Ref, rng: np.random.Generator) -> str:
    """A sentence for all things of one look that have a thing of another beside them."""
    return f"The {noun(target, rng)} {_choose(_SIDES[side], rng)} {with_article(noun(other, rng))}."


def noun(ref: Ref, rng: np.random.Generator, order: str | None = None) -> str:
    """A description without its article."""
    if ref.kind == "pole":
        name = _choose(_NOUNS["pole"], rng)
        if ref.ordinal == -1:
            return f"last {name} on the right"
        return f"{_ORDINALS[ref.ordinal or 1]} {name} from the left"
    words = [order or "", "" if ref.kind == "person" else ref.detail or ""]
    if ref.kind == "person":
        words += [_choose(_NOUNS["person"], rng)]
        words += [f"in a {ref.colour} coat" if ref.colour else "", _DETAILS.get(ref.detail or "", "")]
        words = [word.replace("in a orange", "in an orange") for word in words]
    else:
        words += [ref.colour or "", _choose(_NOUNS.get(ref.kind, (ref.kind,)), rng)]
    if ref.depth is not None:
        words.append(_choose(_DEPTHS[ref.depth], rng))
    if ref.half is not None:
        words.append(_choose(_HALVES, rng).format(ref.half))
    return " ".join(word for word in words if word)


def with_article(phrase: str) -> str:
    """A description with "a" or "an" before it."""
    return f"{'an' if phrase[0] in 'aeiou' else 'a'} {phrase}"


def _plain_ways(target: str) -> list[str]:
    return [f"the {target}", f"look for the {target}", f"the thing to find is the {target}"]


def _zone_ways(meaning: Meaning, target: str, extra: str, rng: np.random.Generator) -> list[str]:
    names = [noun(ref, rng) for ref in meaning.anchors]
    zone = _choose(_ZONES[meaning.zone or ""], rng)
    anchor = " and ".join(f"the {name}" for name in names)
    kind = meaning.target.kind
    verb = "hangs" if kind in SMALL and SMALL[kind].mounted else "stands"
    verb = "is" if zone.startswith(("mounted", "attached")) else verb
    comma, space = (f", {extra}", f" {extra}") if extra else ("", "")
    ways = [
        f"the {target} {zone} {anchor}{comma}",
        f"the {target} that {verb} {zone} {anchor}{comma}",
        f"{zone} {anchor} {verb} the {target}{space}",
        f"look for the {target} that {verb} {zone} {anchor}{comma}",
        f"among the things {zone} {anchor}, find the {target}{space}",
    ]
    if extra:
        ways.append(f"the {target}{space} and {zone} {anchor}")
    if len(names) == 1 and meaning.zone in ("left", "right", "front") and meaning.anchors[0].ordinal is None:
        ways.append(f"there is {with_article(names[0])}, and {zone} it {verb} the {target}{space}")
    return ways


def _choose(choices: tuple[str, ...], rng: np.random.Generator) -> str:
    return choices[int(rng.integers(len(choices)))]
