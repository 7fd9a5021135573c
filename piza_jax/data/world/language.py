"""From a meaning to an English sentence."""

from dataclasses import dataclass

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


_MARKS = tuple((chr(0xE000 + 2 * place), chr(0xE001 + 2 * place)) for place in range(3))  # around what is mentioned


@dataclass(frozen=True)
class Said:
    """A sentence, and the first character and the end of the name of each anchor and then of the neighbour in it."""

    text: str
    mentions: tuple[tuple[int, int], ...] = ()


def say(meaning: Meaning, rng: np.random.Generator) -> Said | None:
    """A sentence of MIN_WORDS to MAX_WORDS words for a meaning; None if no way of saying it has that length."""
    target = noun(meaning.target, rng, order=meaning.order)
    extra = ""
    if meaning.neighbour is not None:
        side, ref = meaning.neighbour
        extra = f"{_choose(_SIDES[side], rng)} {_with_article(noun(ref, rng), len(meaning.anchors))}"
    ways = _plain_ways(target) if meaning.zone is None else _zone_ways(meaning, target, extra, rng)
    ways = [way for way in ways if MIN_WORDS <= len(way.split()) <= MAX_WORDS]
    if not ways:
        return None
    way = ways[int(rng.integers(len(ways)))]
    return _said(way[0].upper() + way[1:] + ".")


def say_all(zone: str, anchor: Ref, rng: np.random.Generator) -> Said:
    """A sentence for everything in a zone of a thing."""
    return _said(f"All the things {_choose(_ZONES[zone], rng)} the {_mark(noun(anchor, rng), 0)}.")


def say_beside(target: Ref, side: str, other: Ref, rng: np.random.Generator) -> Said:
    """A sentence for all things of one look that have a thing of another beside them."""
    return _said(f"The {noun(target, rng)} {_choose(_SIDES[side], rng)} {_with_article(noun(other, rng), 0)}.")


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


def _with_article(phrase: str, place: int) -> str:
    """A mention with "a" or "an" before it."""
    return f"{'an' if phrase[0] in 'aeiou' else 'a'} {_mark(phrase, place)}"


def _mark(phrase: str, place: int) -> str:
    return phrase.join(_MARKS[place])


def _said(marked: str) -> Said:
    """The sentence without the marks in it, and where they were."""
    parts = "".join(mark for pair in _MARKS for mark in pair)
    text = "".join(letter for letter in marked if letter not in parts)
    at = {letter: len([one for one in marked[:place] if one not in parts]) for place, letter in enumerate(marked)}
    return Said(text, tuple((at[start], at[end]) for start, end in _MARKS if start in at))


def _plain_ways(target: str) -> list[str]:
    return [f"the {target}", f"look for the {target}", f"the thing to find is the {target}"]


def _zone_ways(meaning: Meaning, target: str, extra: str, rng: np.random.Generator) -> list[str]:
    names = [noun(ref, rng) for ref in meaning.anchors]
    zone = _choose(_ZONES[meaning.zone or ""], rng)
    anchor = " and ".join(f"the {_mark(name, place)}" for place, name in enumerate(names))
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
        ways.append(f"there is {_with_article(names[0], 0)}, and {zone} it {verb} the {target}{space}")
    return ways


def _choose(choices: tuple[str, ...], rng: np.random.Generator) -> str:
    return choices[int(rng.integers(len(choices)))]
