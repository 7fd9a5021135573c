"""A second reading of SOREC-mini's sentences, apart from the generator: words -> what is said -> which things fit.

It shares no code with piza_jax/data/world but the plain data of a scene. Where the generator judges relations strictly
for the target and loosely for all others, this reads them once, in between.
"""

import re
from typing import Any

COLOURS = ["red", "orange", "yellow", "green", "blue", "purple", "white", "black", "grey", "pink"]
# What a word for a thing means.
KINDS = {
    "traffic cone": "cone",
    "cone": "cone",
    "barrel": "barrel",
    "drum": "barrel",
    "trash bin": "bin",
    "bin": "bin",
    "fire hydrant": "hydrant",
    "hydrant": "hydrant",
    "crate": "crate",
    "box": "crate",
    "person": "person",
    "pedestrian": "person",
    "traffic sign": "sign",
    "sign": "sign",
    "traffic light": "light",
    "flag": "flag",
    "banner": "flag",
    "suitcase": "suitcase",
    "travel case": "suitcase",
    "mailbox": "mailbox",
    "chair": "chair",
    "seat": "chair",
    "parasol": "parasol",
    "sunshade": "parasol",
    "bicycle": "bicycle",
    "bike": "bicycle",
    "clock": "clock",
    "lantern": "lantern",
    "car": "car",
    "van": "van",
    "bus": "bus",
    "coach": "bus",
    "truck": "truck",
    "lorry": "truck",
    "kiosk": "kiosk",
    "booth": "kiosk",
    "house": "house",
    "tower block": "tower",
    "tower": "tower",
}
ORDINALS = {"first": 1, "second": 2, "third": 3, "fourth": 4, "fifth": 5}
ZONES = {
    "to the left of": "left",
    "left of": "left",
    "on the left side of": "left",
    "to the right of": "right",
    "right of": "right",
    "on the right side of": "right",
    "between": "between",
    "on the wall of": "wall",
    "on the front of": "wall",
    "in front of": "front",
    "just in front of": "front",
    "at the foot of": "foot",
    "at the base of": "foot",
    "close to the foot of": "foot",
    "mounted on": "on",
    "attached to": "on",
    "on": "on",
}
MOUNTED = {"sign", "light", "flag", "clock", "lantern"}


def _any(words) -> str:
    return "|".join(sorted(words, key=len, reverse=True))


def _thing(name: str) -> str:
    colour = _any(COLOURS)
    return (
        rf"(?P<{name}>(?:(?:leftmost|rightmost|highest|lowest) )?"
        rf"(?:(?:plain|striped|dotted|crossed|round|square|triangular) )?(?:(?:{colour}) )?(?:{_any(KINDS)})"
        rf"(?: in an? (?:{colour}) coat)?(?: with a (?:bag|hat))?"
        r"(?: in the foreground| near the viewer| in the background| far away)?"
        r"(?: in the (?:left|right) (?:half of the picture|part of the scene))?"
        rf"|(?:{_any(ORDINALS)}) (?:pole|lamp post) from the left|last (?:pole|lamp post) on the right)"
    )


_ANCHORS = rf"the {_thing('a')}(?: and the {_thing('b')})?"
_ZONE = rf"(?P<zone>{_any(ZONES)})"
_EXTRA = rf"(?:directly|just(?: to the)?) (?P<side>left of|right of|above|below) an? {_thing('n')}"
_VERB = "(?:stands|hangs|is)"
FORMS = [
    re.compile(form)
    for form in (
        rf"(?:look for )?the {_thing('t')} (?:that {_VERB} )?{_ZONE} {_ANCHORS}(?:, {_EXTRA})?",
        rf"{_ZONE} {_ANCHORS} {_VERB} the {_thing('t')}(?: {_EXTRA})?",
        rf"among the things {_ZONE} {_ANCHORS}, find the {_thing('t')}(?: {_EXTRA})?",
        rf"the {_thing('t')} {_EXTRA} and {_ZONE} {_ANCHORS}",
        rf"there is an? {_thing('a')}, and {_ZONE} it {_VERB} the {_thing('t')}(?: {_EXTRA})?",
        rf"(?:look for |the thing to find is )?the {_thing('t')}",
    )
]


def parse(sentence: str) -> dict[str, Any]:
    """What a sentence says; fails unless there is exactly one way to read it."""
    assert sentence[0].isupper(), sentence
    assert sentence.endswith("."), sentence
    text = sentence[0].lower() + sentence[1:-1]
    found = [match.groupdict() for form in FORMS if (match := form.fullmatch(text))]
    assert len(found) == 1, f"{len(found)} ways to read {sentence!r}"
    parts = found[0]
    said: dict[str, Any] = {"target": _read(parts["t"]), "anchors": [], "zone": None, "neighbour": None}
    said["order"] = said["target"].pop("order")
    if parts.get("zone"):
        said["anchors"] = [_read(parts[name]) for name in ("a", "b") if parts.get(name)]
        zone = ZONES[parts["zone"]]
        said["zone"] = {True: "pole", False: "wall"}[said["anchors"][0]["kind"] == "pole"] if zone == "on" else zone
        assert (zone == "between") == (len(said["anchors"]) == 2), sentence
    if parts.get("side"):
        said["neighbour"] = parts["side"].split()[0], _read(parts["n"])
    return said


def _read(phrase: str) -> dict[str, Any]:
    """A description of a thing."""
    thing: dict[str, Any] = dict.fromkeys(("kind", "colour", "detail", "half", "depth", "ordinal", "order"))
    pole = re.fullmatch(r"(\w+) (?:pole|lamp post) (?:from the left|on the right)", phrase)
    if pole:
        return {**thing, "kind": "pole", "ordinal": ORDINALS.get(pole[1], -1)}
    for pattern, name in ((r" in the (left|right) (?:half|part) of the \w+", "half"), (r" with a (\w+)", "detail")):
        found = re.search(pattern.replace(" of the \\w+", r" of the (?:picture|scene)"), phrase)
        if found:
            thing[name] = found[1]
            phrase = phrase.replace(found[0], "")
    for words, depth in {
        " in the foreground": "foreground",
        " near the viewer": "foreground",
        " in the background": "background",
        " far away": "background",
    }.items():
        if words in phrase:
            thing["depth"], phrase = depth, phrase.replace(words, "")
    phrase = re.sub(r"(.*) in an? (\w+) coat", r"\2 \1", phrase)
    kind = next(name for name in sorted(KINDS, key=len, reverse=True) if phrase.endswith(name))
    thing["kind"] = KINDS[kind]
    for word in phrase[: len(phrase) - len(kind)].split():
        name = "colour" if word in COLOURS else "order" if word.endswith("est") or word.endswith("most") else "detail"
        assert thing[name] is None, phrase
        thing[name] = word
    thing["detail"] = {"bag": "carrying", "hat": "hatted"}.get(thing["detail"], thing["detail"])
    return thing


def fitting(said: dict[str, Any], things) -> list[int]:
    """Numbers of the things that a sentence is true of."""
    poles = sorted((t for t in things if t.kind == "pole"), key=lambda t: t.box[0])

    def fits(thing, ref) -> bool:
        x, y = (thing.box[0] + thing.box[2]) / 2, thing.box[3]
        return (
            thing.kind == ref["kind"]
            and ref["colour"] in (None, thing.colour)
            and ref["detail"] in (None, thing.detail)
            and ref["half"] in (None, "left" if x < 1024 else "right")
            and (ref["depth"] is None or (y > 1165 if ref["depth"] == "foreground" else y < 980))
            and (ref["ordinal"] is None or poles[ref["ordinal"] - (ref["ordinal"] > 0)] is thing)
        )

    anchors = []
    for ref in said["anchors"]:
        named = [thing for thing in things if fits(thing, ref)]
        assert len(named) == 1, f"{len(named)} things are {ref}"
        anchors.append(named[0])
    found = []
    for number, thing in enumerate(things):
        if thing in anchors or not fits(thing, said["target"]) or not _placed(thing, said["zone"], anchors):
            continue
        if said["neighbour"]:
            side, ref = said["neighbour"]
            if not any(fits(o, ref) and o is not thing and _beside(thing.box, side, o.box) for o in things):
                continue
        found.append(number)
    if said["order"]:
        assert len(found) > 1, "an order of one thing"
        axis, last = {"leftmost": (0, 0), "rightmost": (0, -1), "highest": (1, 0), "lowest": (1, -1)}[said["order"]]
        found = [sorted(found, key=lambda n: things[n].box[axis] + things[n].box[axis + 2])[last]]
    return found


def _placed(thing, zone, anchors) -> bool:
    if zone is None:
        return True
    if zone == "between":
        return _placed(thing, "right", anchors[:1]) and _placed(thing, "left", anchors[1:])
    (x0, y0, x1, y1), (a0, b0, a1, b1) = thing.box, anchors[0].box
    x, y = (x0 + x1) / 2, (y0 + y1) / 2
    if zone in ("left", "right"):
        gap = a0 - x1 if zone == "left" else x0 - a1
        return -10 <= gap <= 340 and abs(y1 - b1) <= 85
    if zone in ("wall", "pole") and thing.kind not in MOUNTED:
        return False
    if zone == "wall":
        return a0 < x < a1 and b0 < y < b1
    if zone == "front":
        return a0 <= x <= a1 and 15 <= y1 - b1 <= 145
    if zone == "pole":
        return abs(x - (a0 + a1) / 2) <= 50 and b0 < y < b1 - 60
    return abs(x - (a0 + a1) / 2) <= 185 and abs(y1 - b1) <= 75


def _beside(box, side, other) -> bool:
    one, two = (box, other) if side in ("left", "above") else (other, box)
    if side in ("left", "right"):
        return -8 <= two[0] - one[2] <= 85 and abs(one[1] + one[3] - two[1] - two[3]) <= 110
    return -8 <= two[1] - one[3] <= 85 and abs(one[0] + one[2] - two[0] - two[2]) <= 70
