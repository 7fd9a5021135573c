"""Everything that can be said of a picture, names and sentences that are true of several things among it."""

from collections.abc import Iterator

import numpy as np

from piza_jax.data.captions import Mention, Phrase
from piza_jax.data.world.expressions import Expression, Speaker
from piza_jax.data.world.kinds import BUILDINGS, COLOURS, SMALL, VEHICLES, WALLS
from piza_jax.data.world.language import Said, noun, say, say_all, say_beside
from piza_jax.data.world.meaning import NEIGHBOURS, Meaning, Ref, is_beside, zones_of
from piza_jax.data.world.pictures import Picture
from piza_jax.data.world.render import place
from piza_jax.data.world.scene import HEIGHT, WIDTH

_SHOWN, _HIDDEN = 0.35, 0.05  # a phrase is left out where a part between these of something that it is true of is seen
_LEAST_SIDE = 0.025  # of a thing's box over the picture's, roots of areas
_ABSENT = 4  # names of things that are not there


def phrases_of(picture: Picture, rng: np.random.Generator) -> list[Phrase]:
    """All phrases of a picture: its expressions, names of what is there and not there, things beside other things.

    Args:
        picture: one of a normal split.
        rng: chooses the words.
    """
    return list(_Teller(picture, rng).phrases())


class _Teller:
    def __init__(self, picture: Picture, rng: np.random.Generator):
        self.picture, self.rng = picture, rng
        whole = picture.window == (0, 0, WIDTH, HEIGHT)
        self.speaker = Speaker(picture.scene, rng, None if whole else picture.window)
        self.index = self.speaker.index
        # Small things of a whole scene are too small for a normal picture: nobody speaks of them.
        self.spoken_of = [n for n, thing in enumerate(self.index.things) if thing.large or not whole]

    def phrases(self) -> Iterator[Phrase]:
        for said in self.picture.expressions:
            box = tuple(map(float, self.picture.box_of(said)))
            yield Phrase(said.text, (box,), 3.0, self._mentions(said, said.meaning, [said.target]))  # type: ignore[arg-type]
        for ref in sorted(self._looks(), key=str):
            boxes = self._boxes([n for n in self.spoken_of if self.index.fits(n, ref, False)])
            if boxes:
                yield Phrase(self._name(ref), boxes)
        yield from self._groups()
        yield from self._absent()
        yield from self._beside()
        yield from self._regions()
        yield from self._neighbours()

    def _looks(self) -> set[Ref]:
        looks = set()
        for number in self.spoken_of:
            thing = self.index.things[number]
            detail = None if thing.detail == "bare" else thing.detail
            looks |= {
                Ref(thing.kind),
                Ref(thing.kind, thing.colour or None),
                Ref(thing.kind, thing.colour or None, detail),
            }
            if thing.kind != "light":
                looks.add(Ref(thing.kind, None, detail))
        return looks

    def _groups(self) -> Iterator[Phrase]:
        """All things of one colour or pattern, whatever they are; without them colours are learnt late or never.

        A noun alone halves the doubt at once, and what a text encoder takes for the whole phrase it does not give up.
        """
        groups: dict[str, list[int]] = {}
        for number in self.spoken_of:
            thing = self.index.things[number]
            names = ["vehicle"] if thing.kind in VEHICLES else ["building"] if thing.kind in BUILDINGS else []
            if self.speaker.window is not None and thing.kind != "pole":
                names.append("thing")
            for name in names:
                groups.setdefault(f"{thing.colour} {name}", []).append(number)
                if thing.detail in ("striped", "dotted", "crossed") and name == "thing":
                    groups.setdefault(f"{thing.detail} {name}", []).append(number)
        for name in sorted(groups):
            boxes = self._boxes(groups[name])
            if boxes:
                yield Phrase(name, boxes)

    def _absent(self) -> Iterator[Phrase]:
        for _ in range(_ABSENT):
            kinds = (*SMALL, *VEHICLES, "kiosk", *BUILDINGS)
            kind = kinds[int(self.rng.integers(len(kinds)))]
            colours = tuple(WALLS) if kind in BUILDINGS else SMALL[kind].colours if kind in SMALL else tuple(COLOURS)
            ref = Ref(kind, colours[int(self.rng.integers(len(colours)))])
            if not any(self.index.fits(number, ref, True) and self._part(number) for number in self.spoken_of):
                yield Phrase(self._name(ref), (), 0.5)

    def _beside(self) -> Iterator[Phrase]:
        """Sentences about all things of one look in a zone of an anchor."""
        for anchor, name in self.speaker.anchors.items():
            for zone in zones_of(name.kind):
                members = self.index.zone(zone, anchor, False) & set(self.spoken_of)
                things = [self.index.things[number] for number in sorted(members)]
                refs = {Ref(thing.kind) for thing in things} | {
                    Ref(thing.kind, thing.colour or None) for thing in things
                }
                for ref in sorted(refs, key=str):
                    meaning = Meaning(ref, zone, (name,))
                    found = self.index.all_of(meaning)
                    boxes = self._boxes(found) if found else None
                    said = say(meaning, self.rng) if boxes and ref.kind != "pole" else None
                    if found and boxes and said:
                        yield Phrase(said.text, boxes, 1.5, self._mentions(said, meaning, found))

    def _regions(self) -> Iterator[Phrase]:
        """Everything in a zone of an anchor, whatever it is: here the relation alone tells what is meant."""
        for anchor, name in self.speaker.anchors.items():
            for zone in zones_of(name.kind):
                members = self.index.zone(zone, anchor, False) & set(self.spoken_of)
                small = [number for number in members if not self.index.things[number].large]
                doubtful = self.index.zone(zone, anchor, True) - members
                if small and len(small) == len(members) and not any(self._part(n) > _HIDDEN for n in doubtful):
                    boxes = self._boxes(sorted(members))
                    if boxes:
                        said, meaning = say_all(zone, name, self.rng), Meaning(name, zone, (name,))
                        yield Phrase(said.text, boxes, 2.0, self._mentions(said, meaning, []))

    def _neighbours(self) -> Iterator[Phrase]:
        """All things of one look that have a thing of another look directly beside them."""
        small = [n for n in self.spoken_of if not self.index.things[n].large and self._part(n) >= _SHOWN]
        said = set()
        for one in small:
            for other in small:
                for side in NEIGHBOURS:
                    thing, beside = self.index.things[one], self.index.things[other]
                    if one != other and is_beside(thing, side, beside, False):
                        said.add((Ref(thing.kind, thing.colour or None), side, Ref(beside.kind, beside.colour or None)))
        for target, side, neighbour in sorted(said, key=str):
            meaning = Meaning(target, neighbour=(side, neighbour))
            found = self.index.all_of(meaning)
            boxes = self._boxes(found) if found else None
            if found and boxes:
                text = say_beside(target, side, neighbour, self.rng)
                yield Phrase(text.text, boxes, 2.0, self._mentions(text, meaning, found))

    def _mentions(self, said: Said | Expression, meaning: Meaning, targets: list[int]) -> tuple[Mention, ...]:
        """What a sentence about targets names beside them, with the boxes of what is seen of it."""
        named = [[self.index.sole(ref)] for ref in meaning.anchors]
        if meaning.neighbour is not None:
            side, ref = meaning.neighbour
            things = self.index.things
            named.append(
                [
                    number
                    for number in self.index.small
                    if self.index.fits(number, ref, False)
                    and any(n != number and is_beside(things[n], side, things[number], False) for n in targets)
                ]
            )
        boxes = [self._boxes([number for number in numbers if number is not None], _HIDDEN) for numbers in named]
        return tuple(Mention(*span, box) for span, box in zip(said.mentions, boxes, strict=True) if box)

    def _name(self, ref: Ref) -> str:
        return "pole" if ref.kind == "pole" else noun(ref, self.rng)

    def _part(self, number: int) -> float:
        """How much of a thing's box is in the picture, 0..1."""
        return self.index.things[number].part_in(self.picture.window)

    def _boxes(self, numbers: list[int], shown: float = _SHOWN) -> tuple[tuple[float, float, float, float], ...] | None:
        """What is seen of things, xyxy pixels of the picture; None where it is doubtful whether one is seen."""
        width, height = self.picture.size
        boxes = []
        for number in numbers:
            part = self._part(number)
            if part <= _HIDDEN:
                continue
            x0, y0, x1, y1 = place(self.index.things[number].box, self.picture.window, self.picture.size)
            box = max(x0, 0), max(y0, 0), min(x1, width), min(y1, height)
            small = (box[2] - box[0]) * (box[3] - box[1]) < width * height * _LEAST_SIDE**2
            if part < shown or (small and self.index.things[number].kind != "pole"):
                return None
            boxes.append(tuple(map(float, box)))
        return tuple(boxes)  # type: ignore[arg-type]
