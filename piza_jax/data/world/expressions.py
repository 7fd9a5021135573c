"""Choosing what to say of a thing: a meaning that singles it out, built from a large anchor and attributes."""

from dataclasses import dataclass, replace

import numpy as np

from piza_jax.data.world.kinds import SMALL
from piza_jax.data.world.language import say
from piza_jax.data.world.meaning import (
    NEIGHBOURS,
    ORDERS,
    Meaning,
    Ref,
    SceneIndex,
    in_depth,
    in_half,
    is_beside,
    zones_of,
)
from piza_jax.data.world.scene import HEIGHT, WIDTH, Box, Scene, Thing

_MIN_SEEN = 90  # pixels of a large thing that must be in the picture, across and down, for it to be spoken of


@dataclass(frozen=True)
class Expression:
    """A sentence, what it says, the thing that it speaks of, and where it names others as language.Said has it."""

    text: str
    meaning: Meaning
    target: int
    mentions: tuple[tuple[int, int], ...] = ()


class Speaker:
    """Finds expressions for the things of one scene."""

    def __init__(self, scene: Scene, rng: np.random.Generator, window: Box | None = None):
        """Speak of a scene, or of a window of it: then without counting poles or naming parts of the picture.

        Args:
            scene: what there is.
            rng: source of the choices.
            window: what is seen of the scene; None is all of it.
        """
        self.index, self.rng, self.window = SceneIndex(scene), rng, window
        self.anchors: dict[int, Ref] = {}
        for number in self.index.large:
            if _seen(self.index.things[number], window or (0, 0, WIDTH, HEIGHT)):
                ref = self._anchor(number)
                if ref is not None:
                    self.anchors[number] = ref

    def small(self, target: int) -> Expression | None:
        """An expression for a small thing; None where none was found."""
        places = self._places(target)
        for place in self._shuffled(places):
            for meaning in self._meanings(target, *places[place]):
                if self.index.referent(meaning) == target:
                    said = say(meaning, self.rng)
                    if said is not None:
                        return Expression(said.text, meaning, target, said.mentions)
        return None

    def large(self, target: int) -> Expression | None:
        """An expression for a large thing, by its place in the picture or by another large thing beside it."""
        ref = self.anchors.get(target)
        if ref is None:
            return None
        meanings = [Meaning(hint) for hint in ([ref] if ref.kind == "pole" else self._hinted(target))]
        plain = Ref(ref.kind, ref.colour, ordinal=ref.ordinal)
        for anchor, name in self.anchors.items():
            for zone in ("left", "right"):
                if zone in zones_of(self.index.things[anchor].kind) and target in self.index.zone(zone, anchor, False):
                    meanings.append(Meaning(plain, zone, (name,)))
        for number in self._shuffled(meanings):
            meaning = meanings[number]
            if self.index.referent(meaning) == target:
                said = say(meaning, self.rng)
                if said is not None:
                    return Expression(said.text, meaning, target, said.mentions)
        return None

    def _shuffled(self, items: list) -> list[int]:
        return [int(number) for number in self.rng.permutation(len(items))]

    def _anchor(self, number: int) -> Ref | None:
        """A way to name a large thing that fits no other, now and then with more words than it needs."""
        thing = self.index.things[number]
        if thing.kind == "pole":
            if self.window is not None or len(self.index.poles) < 2:
                return None
            place = self.index.poles.index(number) + 1
            last = place == len(self.index.poles) and int(self.rng.integers(2))
            return Ref("pole", ordinal=-1 if last else place)
        choices = [Ref(thing.kind, thing.colour)]
        if self.window is None:
            hinted = self._hinted(number)
            choices = hinted + choices if int(self.rng.integers(3)) == 0 else choices + hinted
        return next((ref for ref in choices if self.index.sole(ref) == number), None)

    def _hinted(self, number: int) -> list[Ref]:
        """Names of a large thing with its half of the picture, its depth, or both; in any order."""
        thing = self.index.things[number]
        ref = Ref(thing.kind, thing.colour or None)
        half = next((half for half in ("left", "right") if in_half(thing, half, False)), None)
        depth = next((depth for depth in ("foreground", "background") if in_depth(thing, depth, False)), None)
        depth = None if "front" in zones_of(thing.kind) else depth  # buildings always stand at the back
        refs = [replace(ref, half=half)] if half else []
        refs += [replace(ref, depth=depth)] if depth else []
        refs += [replace(ref, half=half, depth=depth)] if half and depth else []
        return [refs[place] for place in self._shuffled(refs)]

    def _places(self, target: int) -> list[tuple[str, tuple[Ref, ...]]]:
        """Where a small thing is, strictly, as seen from the large things that can be named."""
        sides: dict[str, list[int]] = {"left": [], "right": []}
        places: list[tuple[str, tuple[Ref, ...]]] = []
        for anchor, ref in self.anchors.items():
            for zone in zones_of(ref.kind):
                if target in self.index.zone(zone, anchor, False):
                    places.append((zone, (ref,)))
                    sides.setdefault(zone, []).append(anchor)
        for left in sides["right"]:
            places += [("between", (self.anchors[left], self.anchors[right])) for right in sides["left"]]
        return places

    def _meanings(self, target: int, zone: str, anchors: tuple[Ref, ...]) -> list[Meaning]:
        """Ways to describe a small thing within a zone, short ones mostly before long ones."""
        thing = self.index.things[target]
        full = _look(thing)
        bare = replace(full, detail=None)
        looks = [bare, full] if int(self.rng.integers(2)) else [full, bare]
        looks = looks if full != bare else [full]
        if thing.kind != "light" and full != bare and int(self.rng.integers(4)) == 0:
            looks.insert(0, replace(full, colour=None))
        # Things on a pole hang one below the other, all else comes in rows.
        orders, sides = (ORDERS[2:], NEIGHBOURS[2:]) if zone == "pole" else (ORDERS[:2], NEIGHBOURS[:2])
        plain = [Meaning(look, zone, anchors) for look in looks]
        longer = [Meaning(look, zone, anchors, order=order) for look in looks for order in orders]
        for other in self.index.small:
            for side in sides:
                beside = self.index.things[other]
                if other != target and is_beside(thing, side, beside, False) and self._shown(beside):
                    longer += [Meaning(look, zone, anchors, neighbour=(side, _look(beside))) for look in looks]
        longer = [longer[place] for place in self._shuffled(longer)]
        return longer + plain if int(self.rng.integers(3)) == 0 else plain + longer

    def _shown(self, thing: Thing) -> bool:
        """Whether all of a thing is in the window."""
        if self.window is None:
            return True
        box, window = thing.box, self.window
        return window[0] <= box[0] and window[1] <= box[1] and box[2] <= window[2] and box[3] <= window[3]


def _look(thing: Thing) -> Ref:
    """Kind, colour and detail, where the detail can be said."""
    detail = None if thing.detail == "bare" else thing.detail
    return Ref(thing.kind, thing.colour, detail)


def _seen(thing: Thing, window: Box) -> bool:
    """Whether enough of a large thing is in the picture to know it."""
    across = min(thing.box[2], window[2]) - max(thing.box[0], window[0])
    down = min(thing.box[3], window[3]) - max(thing.box[1], window[1])
    if thing.kind == "pole":
        return across > 10 and down > _MIN_SEEN
    return across >= _MIN_SEEN and down >= 60


def is_rare(thing: Thing) -> bool:
    """Whether a thing is of a kind that is rare in training."""
    return thing.kind in SMALL and SMALL[thing.kind].rare
